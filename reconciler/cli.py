"""argv -> a command; the only place that exits.

Exit codes: 0 fine; 1 something failed (validate: problems; run --once: a VM failed that had not failed before; lab: bytes or power differ);
2 the repo cannot be read or written; 64 usage. `worker` has codes of its own (core/copyspec.py).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reconciler import __version__, settings
from reconciler.errors import ReconcilerError, UserError

EXIT_REPO, EXIT_USAGE = 2, 64


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    if args.command is None:
        _parser().print_help()
        return EXIT_USAGE
    try:
        return _dispatch(args)
    except UserError as err:
        print(f"reconciler: {err.message}", file=sys.stderr)
        return EXIT_USAGE
    except ReconcilerError as err:
        print(f"reconciler: {err.reason}: {err.message}", file=sys.stderr)
        return EXIT_REPO
    except KeyboardInterrupt:
        print("reconciler: stopped", file=sys.stderr)
        return 130


def _dispatch(args: argparse.Namespace) -> int:
    """Each command is imported only when it is asked for: `validate` and `worker` load no SDK."""
    match args.command:
        case "validate":
            from reconciler.commands import validate

            return validate.run(args.path, args.format, args.allow_unknown)
        case "worker":
            from reconciler.commands import worker

            if args.volumes:
                return worker.try_volumes(args.volumes, args.vddk)
            return worker.run(args.spec)
        case "run":
            from reconciler.commands import run as run_command

            return run_command.run(_settings(args), once=args.once, log_format=args.log_format, log_level=args.log_level)
        case "status":
            from reconciler.app import open_repo
            from reconciler.clock import SystemClock
            from reconciler.commands import status

            clock = SystemClock()
            repo = open_repo(_settings(args), clock)
            return status.run(repo, target=args.object, watch=args.watch, output=args.output, clock=clock, out=sys.stdout)
        case "plan":
            from reconciler.clock import SystemClock
            from reconciler.commands import plan

            _need_source(args)
            return plan.run(_settings(args), folder=args.dir, format=args.format, clock=SystemClock(), out=sys.stdout)
        case "inventory":
            from reconciler.clock import SystemClock
            from reconciler.commands import inventory

            _need_source(args)
            return inventory.run(
                _settings(args), name=args.provider, folder=args.dir, output=args.output, clock=SystemClock(), out=sys.stdout
            )
        case "sweep":
            from reconciler.clock import SystemClock
            from reconciler.commands import sweep

            everywhere, delete, format_ = args.all_namespaces, args.delete, args.format
            return sweep.run(_settings(args), everywhere=everywhere, delete=delete, format=format_, clock=SystemClock(), out=sys.stdout)
        case "vddk-image":
            from reconciler.commands import vddkimage

            return vddkimage.run(vddkimage.Wishes(args.tarball, args.image, args.base, args.tool))
        case "install":
            from reconciler.commands import install

            return install.run(
                install.Wishes(
                    namespace=args.namespace,
                    repo=args.repo,
                    image=args.image,
                    cron=args.cron,
                    branch=args.branch,
                    path=args.path,
                    targets=tuple(args.target_namespace),
                    provider_secrets=tuple(args.provider_secret),
                )
            )
        case _:
            from reconciler import labrun

            return labrun.run(labrun.Wishes(args.dir, args.serve, args.json, args.log_level, args.fresh_repo))


def _need_source(args: argparse.Namespace) -> None:
    if not args.repo and args.dir is None:
        raise UserError("InvalidArgument", "name the repo with --repo, a folder with --dir, or both")


def _settings(args: argparse.Namespace) -> settings.Settings:
    base = settings.Settings(repo=args.repo or "")
    return settings.Settings(
        repo=args.repo or "",
        branch=args.branch,
        path=args.path,
        status_branch=args.status_branch,
        lease_branch=args.lease_branch,
        lease_ttl_s=getattr(args, "lease_ttl", base.lease_ttl_s),
        poll_s=getattr(args, "poll_interval", base.poll_s),
        max_wait_s=getattr(args, "max_wait", base.max_wait_s),
        commit_interval_s=getattr(args, "commit_interval", base.commit_interval_s),
        progress_interval_s=getattr(args, "progress_interval", base.progress_interval_s),
        site_budget_s=getattr(args, "site_budget", base.site_budget_s),
        cache_dir=args.cache_dir,
        credentials_dir=getattr(args, "credentials_dir", None),
        kubeconfig=getattr(args, "kubeconfig", None) or settings.default_kubeconfig(),
        worker_image=getattr(args, "worker_image", base.worker_image),
        image_pull_policy=getattr(args, "image_pull_policy", base.image_pull_policy),
        git_askpass=args.git_askpass,
        git_ssh_command=args.git_ssh_command,
        holder=settings.default_holder(),
        listen=getattr(args, "listen", None),
        environment=settings.inherited_environment(),
    )


# ---- the command line -------------------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="reconciler", description="Virtual machine migration by pull request, into KubeVirt.")
    parser.add_argument("--version", action="version", version=f"reconciler {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _lab(commands.add_parser("lab", help="run a whole migration against simulated sites on this machine"))
    _run(commands.add_parser("run", help="reconcile a repo, as a loop or once (cron)"))
    _validate(commands.add_parser("validate", help="check a tree of manifests offline"))
    _plan(commands.add_parser("plan", help="what a commit would do if it were merged; CI's answer to a pull request"))
    _inventory(commands.add_parser("inventory", help="VMs, networks and datastores of a source, to write plans from"))
    _status(commands.add_parser("status", help="plans and VMs, read from the status branch"))
    _sweep(commands.add_parser("sweep", help="what is left of ours on the targets, explained by no run"))
    _install(commands.add_parser("install", help="print the manifests that put the reconciler into a cluster"))
    _vddk_image(commands.add_parser("vddk-image", help="print a script that makes an image with VMware's VDDK of your own tarball"))
    worker = commands.add_parser("worker", help="the copy pod's program; started by the importer Job")
    what = worker.add_mutually_exclusive_group(required=True)
    what.add_argument("spec", type=Path, nargs="?", help="spec.json, mounted from the Job's Secret")
    what.add_argument("--try", dest="volumes", nargs="+", metavar="MODE:CLAIM:PATH", help="open volumes as a copy would, then end")
    worker.add_argument("--vddk", type=Path, metavar="DIR", help="with --try: load VDDK from there too")
    return parser


def _lab(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, help="keep the repo, clone, disks and logs here (default: a temporary folder)")
    parser.add_argument("--serve", action="store_true", help="stay up after the run: edit the clone, push, and watch")
    parser.add_argument("--json", action="store_true", help="print the result for machines")
    parser.add_argument("--repo-from", dest="fresh_repo", type=Path, help="folder to begin the repo from (default: examples/repo)")
    parser.add_argument("--log-level", default="WARNING", choices=["DEBUG", "INFO", "WARNING", "ERROR"])


def _repo(parser: argparse.ArgumentParser, required: bool = True) -> None:
    env = settings.variable
    needed = required and env("REPO") is None
    parser.add_argument("--repo", required=needed, default=env("REPO"), help="git URL, without credentials in it [RECONCILER_REPO]")
    parser.add_argument("--branch", default=env("BRANCH"), help="desired branch (default: the remote's HEAD) [RECONCILER_BRANCH]")
    parser.add_argument("--path", default=env("PATH") or ".", help="folder inside the branch [RECONCILER_PATH]")
    parser.add_argument("--status-branch", default=env("STATUS_BRANCH") or "reconciler/status")
    parser.add_argument("--lease-branch", default=env("LEASE_BRANCH") or "reconciler/lease")
    parser.add_argument("--cache-dir", type=Path, default=Path(env("CACHE_DIR") or settings.default_cache_dir()), help="disposable clone")
    parser.add_argument("--git-askpass", type=Path, default=_path(env("GIT_ASKPASS")), help="program that prints the git password")
    parser.add_argument("--git-ssh-command", default=env("GIT_SSH_COMMAND"), help="ssh with its options; host keys stay checked")


def _sites(parser: argparse.ArgumentParser) -> None:
    """What every command needs that talks to sites."""
    env = settings.variable
    parser.add_argument("--site-budget", type=float, default=20.0, help="seconds that a pass waits for one site")
    parser.add_argument("--kubeconfig", type=Path, default=None, help="default: KUBECONFIG, ~/.kube/config, else in-cluster")
    parser.add_argument(
        "--credentials-dir", type=Path, default=_path(env("CREDENTIALS_DIR")), help="mounted Secrets: <namespace>/<name>/<key>"
    )


def _run(parser: argparse.ArgumentParser) -> None:
    env = settings.variable
    _repo(parser)
    _sites(parser)
    parser.add_argument("--once", action="store_true", help="pass until nothing can move any more, then exit (for cron)")
    parser.add_argument("--max-wait", type=float, default=env("MAX_WAIT") or "60", help="with --once: seconds to wait for movement")
    parser.add_argument("--poll-interval", type=float, default=env("POLL_INTERVAL") or "15", help="seconds between looks at git")
    parser.add_argument("--commit-interval", type=float, default=5.0, help="seconds between commits that hold no milestone")
    parser.add_argument("--progress-interval", type=float, default=300.0, help="seconds between commits of mere progress")
    parser.add_argument("--lease-ttl", type=float, default=env("LEASE_TTL") or "180", help="seconds")
    parser.add_argument("--worker-image", default=env("WORKER_IMAGE") or "reconciler:latest", help="image of the copy pods")
    parser.add_argument("--image-pull-policy", default="IfNotPresent", choices=["Always", "IfNotPresent", "Never"])
    parser.add_argument("--listen", metavar="HOST:PORT", default=env("LISTEN"), help="serve /metrics and /healthz in loop mode")
    parser.add_argument("--log-format", default=env("LOG_FORMAT") or "human", choices=["human", "json"])
    parser.add_argument("--log-level", default=env("LOG_LEVEL") or "INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])


def _validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, nargs="?", default=Path(), help="file or folder")
    parser.add_argument("--format", default="text", choices=["text", "json", "github"])
    parser.add_argument("--allow-unknown", action="store_true", help="unknown fields are warnings")


def _plan(parser: argparse.ArgumentParser) -> None:
    _repo(parser, required=False)
    _sites(parser)
    parser.add_argument("--dir", type=Path, default=None, help="take the manifests from this folder instead of a branch")
    parser.add_argument("--format", default="text", choices=["text", "json", "markdown"], help="markdown: for a comment")


def _inventory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("provider", metavar="PROVIDER", help="NAME or NAMESPACE/NAME of a source Provider in the repo")
    _repo(parser, required=False)
    _sites(parser)
    parser.add_argument("--dir", type=Path, default=None, help="take the manifests from this folder instead of a branch")
    parser.add_argument("-o", "--output", default="table", choices=["table", "json"])


def _sweep(parser: argparse.ArgumentParser) -> None:
    _repo(parser)
    _sites(parser)
    parser.add_argument("--all-namespaces", action="store_true", help="not only those that plans and records name")
    parser.add_argument("--delete", action="store_true", help="delete what may be deleted; needs the lease")
    parser.add_argument("--lease-ttl", type=float, default=float(settings.variable("LEASE_TTL") or 180), help="as the reconciler's own")
    parser.add_argument("--format", default="text", choices=["text", "json"])


def _install(parser: argparse.ArgumentParser) -> None:
    env = settings.variable
    needed = env("REPO") is None
    parser.add_argument("--repo", required=needed, default=env("REPO"), help="git URL, without credentials in it [RECONCILER_REPO]")
    parser.add_argument("--branch", default=env("BRANCH"), help="desired branch (default: the remote's HEAD)")
    parser.add_argument("--path", default=env("PATH") or ".", help="folder inside the branch")
    parser.add_argument("--namespace", default="openshift-mtv", help="where it runs, and where the Secrets of Providers are")
    parser.add_argument("--image", default=env("WORKER_IMAGE") or "reconciler:latest", help="of the reconciler and of its copy pods")
    parser.add_argument("--cron", metavar="SCHEDULE", default=None, help="a CronJob instead of a Deployment, for example '*/5 * * * *'")
    parser.add_argument(
        "--target-namespace", action="append", default=[], metavar="NAME", help="grant rights only there; repeat it (default: everywhere)"
    )
    parser.add_argument(
        "--provider-secret", action="append", default=[], metavar="NAME", help="mount this Secret instead of reading it by API; repeat it"
    )


def _vddk_image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tarball", required=True, help="VMware's, for example VMware-vix-disklib-8.0.3-23950268.x86_64.tar.gz")
    parser.add_argument("--image", required=True, help="its name in a registry of yours: registry.example.com/infra/vddk:8.0.3")
    parser.add_argument("--base", default="docker.io/library/busybox:stable", help="image that it stands on; it needs a shell and cp")
    parser.add_argument("--tool", default="podman", choices=["podman", "docker"])


def _status(parser: argparse.ArgumentParser) -> None:
    _repo(parser)
    parser.add_argument("object", nargs="?", help="plan/NAME, migration/NAME, vm/NAME … (default: everything)")
    parser.add_argument("--watch", action="store_true", help="show it anew when it changes")
    parser.add_argument("-o", "--output", default="table", choices=["table", "yaml", "json"])


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
