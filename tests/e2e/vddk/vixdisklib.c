/* A stand-in for VMware's libvixDiskLib.so.8: the calls that nbdkit's vddk plugin makes, over one local file.
 *
 * What it is: enough to judge that the plugin is started and asked rightly: who connects, to what, with which snapshot and transport, and
 * which disk is opened. What it is not: VMware's code, or its network protocol.
 * The configuration file that InitEx gets says what must be asked for (server, user, password, thumbprint, vm, snapshot, transports, file),
 * where the bytes are (disk), and what is to go wrong (fail: a text, given where `at` says: connect, open or read). With `broker`, the path
 * of a unix socket, all that is asked there instead, disk by disk (tests/contract/vddk_site.py).
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define OK 0
#define FAIL 1
#define WRONG 13
#define LOGIN 18000
#define PIN 18001
#define GONE 4
#define ASYNC 25000
#define SECTOR 512

typedef uint64_t Error;
typedef void Log (const char *format, va_list args);
typedef void Done (void *data, Error result);

typedef struct {
  char *vm, *server, *thumbprint;
  long unused1;
  int kind; /* 1: user and password */
  union {
    struct { char *user, *password; } uid;
    struct { char *cookie, *user, *key; } session;
  } who;
  uint32_t port, nfc_port;
  char *unused2;
  char unused3[8];
  void *unused4;
  struct { char *id, *datastore, *ss; } object;
  int spec;
} Params;

typedef struct {
  uint32_t bios[3], phys[3];
  uint64_t capacity;
  int adapter, links;
  char *hint, *uuid;
  uint32_t logical, physical;
} Info;

typedef struct { uint64_t offset, length; } Block;
typedef struct { uint32_t count; Block blocks[]; } Blocks;
typedef struct { int fd; } Handle;
typedef struct { char question[4096]; } Connection;

static char settings[8192];
static Log *complain;

static void say (Log *log, const char *format, ...) {
  va_list args;
  va_start (args, format);
  log (format, args);
  va_end (args);
}

/* The value of `key`, or NULL. The caller frees it. */
static char *setting (const char *key) {
  size_t length = strlen (key);
  for (char *line = settings; line && *line; line = strchr (line, '\n'), line = line ? line + 1 : NULL)
    if (!strncmp (line, key, length) && line[length] == '=') return strndup (line + length + 1, strcspn (line + length + 1, "\n"));
  return NULL;
}

static int is (const char *key, const char *given) {
  char *want = setting (key);
  int same = want ? given && !strcmp (want, given) : !given;
  free (want);
  return same;
}

static int fails (const char *at) {
  char *text = setting ("fail");
  int now = text && is ("at", at);
  if (now) say (complain, "%s", text);
  free (text);
  return now;
}

/* The broker's answer to one line, without its end. 0: it could not be asked. */
static int ask (const char *broker, const char *line, char *answer, size_t size) {
  struct sockaddr_un there = { .sun_family = AF_UNIX };
  snprintf (there.sun_path, sizeof there.sun_path, "%s", broker);
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  size_t at = 0;
  if (fd >= 0 && !connect (fd, (struct sockaddr *) &there, sizeof there) && write (fd, line, strlen (line)) == (ssize_t) strlen (line))
    for (ssize_t got; at + 1 < size && (got = read (fd, answer + at, size - 1 - at)) > 0;) at += got;
  if (fd >= 0) close (fd);
  answer[at] = 0;
  answer[strcspn (answer, "\n")] = 0;
  return at > 0;
}

Error VixDiskLib_InitEx (uint32_t major, uint32_t minor, Log *log, Log *warn, Log *panic, const char *folder, const char *config) {
  (void) major, (void) minor, (void) log, (void) panic, (void) folder;
  complain = warn;
  int fd = config ? open (config, O_RDONLY) : -1;
  if (fd < 0) return FAIL;
  ssize_t got = read (fd, settings, sizeof settings - 1);
  close (fd);
  return got < 0 ? FAIL : OK;
}

void VixDiskLib_Exit (void) {}
const char *VixDiskLib_ListTransportModes (void) { return "file:nbdssl:nbd"; }

char *VixDiskLib_GetErrorText (Error error, const char *unused) {
  (void) unused;
  switch (error) {
  case LOGIN: return strdup ("Incorrect user name or password");
  case PIN: return strdup ("The thumbprint of the host does not match");
  case GONE: return strdup ("A file was not found");
  case WRONG: return strdup ("One of the parameters was invalid");
  default: return strdup ("Unknown error");
  }
}

void VixDiskLib_FreeErrorText (char *text) { free (text); }
Params *VixDiskLib_AllocateConnectParams (void) { return calloc (1, sizeof (Params)); }
void VixDiskLib_FreeConnectParams (Params *params) { free (params); }

Error VixDiskLib_ConnectEx (const Params *p, char read_only, const char *snapshot, const char *transports, void **connection) {
  if (fails ("connect")) return FAIL;
  char *broker = setting ("broker");
  Connection *made = calloc (1, sizeof *made);
  *connection = made;
  snprintf (made->question, sizeof made->question, "%s\t%s\t%s\t%s\t%s", p->who.uid.user, p->who.uid.password, p->thumbprint, p->vm,
            snapshot ? snapshot : "");
  if (broker) {
    free (broker);
    return p->kind == 1 && read_only ? OK : WRONG;
  }
  if (!is ("server", p->server) || !is ("vm", p->vm) || !is ("snapshot", snapshot) || !is ("transports", transports)) return WRONG;
  if (!is ("thumbprint", p->thumbprint)) return PIN;
  if (p->kind != 1 || !is ("user", p->who.uid.user) || !is ("password", p->who.uid.password)) return LOGIN;
  if (!read_only) return WRONG;
  return OK;
}

Error VixDiskLib_Disconnect (void *connection) { free (connection); return OK; }

/* What the broker names, or NULL after it was said why not. */
static char *brokered (const char *broker, const Connection *connection, const char *path) {
  char line[8192], answer[8192];
  snprintf (line, sizeof line, "%s\t%s\n", connection->question, path);
  if (!ask (broker, line, answer, sizeof answer)) strcpy (answer, "ERR the broker is not there");
  if (!strncmp (answer, "OK ", 3)) return strdup (answer + 3);
  say (complain, "%s", answer + 4);
  return NULL;
}

Error VixDiskLib_Open (void *connection, const char *path, uint32_t flags, Handle **handle) {
  if (fails ("open")) return FAIL;
  if (!(flags & 4)) return WRONG; /* not read-only */
  char *broker = setting ("broker"), *disk = broker ? brokered (broker, connection, path) : setting ("disk");
  if (broker ? !disk : !is ("file", path)) return broker ? FAIL : GONE;
  free (broker);
  Handle *made = malloc (sizeof *made);
  made->fd = disk ? open (disk, O_RDONLY | O_CLOEXEC) : -1;
  free (disk);
  *handle = made;
  return made->fd < 0 ? FAIL : OK;
}

Error VixDiskLib_Close (Handle *handle) {
  close (handle->fd);
  free (handle);
  return OK;
}

const char *VixDiskLib_GetTransportMode (Handle *handle) { (void) handle; return "nbdssl"; }

Error VixDiskLib_GetInfo (Handle *handle, Info **info) {
  struct stat about;
  if (fstat (handle->fd, &about)) return FAIL;
  *info = calloc (1, sizeof **info);
  (*info)->capacity = about.st_size / SECTOR;
  (*info)->adapter = 3;
  (*info)->links = 1;
  (*info)->logical = (*info)->physical = SECTOR;
  return OK;
}

void VixDiskLib_FreeInfo (Info *info) { free (info); }

Error VixDiskLib_Read (Handle *handle, uint64_t start, uint64_t count, unsigned char *buffer) {
  if (fails ("read")) return FAIL;
  for (uint64_t at = 0; at < count * SECTOR;) {
    ssize_t got = pread (handle->fd, buffer + at, count * SECTOR - at, start * SECTOR + at);
    if (got <= 0) return FAIL;
    at += got;
  }
  return OK;
}

Error VixDiskLib_ReadAsync (Handle *handle, uint64_t start, uint64_t count, unsigned char *buffer, Done *done, void *data) {
  done (data, VixDiskLib_Read (handle, start, count, buffer));
  return ASYNC;
}

Error VixDiskLib_Write (Handle *h, uint64_t s, uint64_t n, const unsigned char *b) { (void) h, (void) s, (void) n, (void) b; return FAIL; }
Error VixDiskLib_WriteAsync (Handle *h, uint64_t s, uint64_t n, const unsigned char *b, Done *d, void *p) {
  (void) h, (void) s, (void) n, (void) b, (void) d, (void) p;
  return FAIL;
}
Error VixDiskLib_Create (void *c, const char *path, const void *how, void *f, void *d) { (void) c, (void) path, (void) how, (void) f, (void) d; return FAIL; }
Error VixDiskLib_Flush (Handle *handle) { (void) handle; return OK; }
Error VixDiskLib_Wait (Handle *handle) { (void) handle; return OK; }

/* Allocated: chunks of the file that hold a byte that is not zero. */
Error VixDiskLib_QueryAllocatedBlocks (Handle *handle, uint64_t start, uint64_t count, uint64_t chunk, Blocks **out) {
  unsigned char *buffer = malloc (chunk * SECTOR);
  Blocks *list = malloc (sizeof *list + (count / chunk + 1) * sizeof (Block));
  list->count = 0;
  for (uint64_t at = start; at < start + count; at += chunk) {
    ssize_t got = pread (handle->fd, buffer, chunk * SECTOR, at * SECTOR);
    int data = 0;
    for (ssize_t n = 0; n < got; n++) data |= buffer[n];
    if (data) list->blocks[list->count++] = (Block) { at, chunk };
  }
  free (buffer);
  *out = list;
  return OK;
}

void VixDiskLib_FreeBlockList (Blocks *list) { free (list); }
