// A relay of the kubelet's kind: it does with an upgraded connection what UpgradeAwareHandler of
// Kubernetes does, and nothing else.
package main

import (
	"bufio"
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	listen, backend := os.Args[1], os.Args[2]
	log.Fatal(http.ListenAndServe(listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		backendConn, err := net.Dial("tcp", backend)
		if err != nil {
			http.Error(w, "error dialing backend: "+err.Error(), http.StatusInternalServerError)
			return
		}
		defer backendConn.Close()
		if err := r.Write(backendConn); err != nil {
			return
		}
		// What is read too far belongs to the stream.
		var raw bytes.Buffer
		response, err := http.ReadResponse(bufio.NewReader(io.TeeReader(backendConn, &raw)), r)
		if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
			http.Error(w, "no upgrade", http.StatusBadGateway)
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := raw.WriteTo(conn); err != nil {
			return
		}
		writerComplete, readerComplete := make(chan struct{}), make(chan struct{})
		go func() {
			io.Copy(backendConn, conn)
			close(writerComplete)
		}()
		go func() {
			io.Copy(conn, backendConn)
			close(readerComplete)
		}()
		select {
		case <-writerComplete:
		case <-readerComplete:
		}
	})))
}
