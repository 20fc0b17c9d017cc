// vcsim with our certificate, our password and our estate, and a door for the test to look behind the SOAP API with govmomi's own client.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/simulator"
)

func main() {
	cert, key := flag.String("cert", "", "PEM file"), flag.String("key", "", "PEM file")
	user, password := flag.String("user", "", ""), flag.String("password-file", "", "")
	count, esxi := flag.Int("vms", 7, "machines"), flag.Bool("esxi", false, "one ESXi host instead of a vCenter")
	flag.Parse()
	secret, err := os.ReadFile(*password)
	must(err)
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	must(err)

	model := simulator.VPX()
	model.Machine = min(*count, modelled) / 2 // per pool; there is one for the cluster and one for the single host
	if *esxi {
		model = simulator.ESX()
		model.Machine = *count
	}
	must(model.Create())
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(*user, string(secret))}
	server := model.Service.NewServer()

	ctx := context.Background()
	address := *server.URL
	address.User = url.UserPassword(*user, string(secret))
	client, err := govmomi.NewClient(ctx, &address, true)
	must(err)
	door, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	estate := &estate{ctx: ctx, client: client, model: model}
	must(estate.equip())
	must(estate.grow(*count))
	go func() { must(http.Serve(door, estate)) }()

	must(json.NewEncoder(os.Stdout).Encode(map[string]string{"url": "https://" + address.Host + "/sdk", "door": "http://" + door.Addr().String()}))
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
}

// modelled machines are made one by one by vcsim, which looks for the end of a task each 20 ms; beyond that many we clone, side by side.
const modelled = 100

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		log.Fatal(err)
	}
}
