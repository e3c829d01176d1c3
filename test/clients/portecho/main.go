// Command portecho is what runs in a container whose ports are to be tried. Port 7 of TCP tells how many bytes came once the client
// has ended its side, port 7 of UDP gives back what it gets, and port 19 of TCP reads a number and sends that many bytes.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"strings"
)

func main() {
	failed := make(chan error, 3)
	go func() { failed <- serve(":7", count) }()
	go func() { failed <- serve(":19", send) }()
	go func() { failed <- datagrams(":7") }()
	log.Fatal(<-failed)
}

func serve(addr string, handle func(net.Conn) error) error {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			if err := errors.Join(handle(c), c.Close()); err != nil {
				log.Print(err)
			}
		}()
	}
}

func count(c net.Conn) error {
	n, err := io.Copy(io.Discard, c)
	if err == nil {
		_, err = fmt.Fprintf(c, "%d\n", n)
	}
	return err
}

func send(c net.Conn) error {
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	left, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for left > 0 && err == nil {
		var n int
		n, err = c.Write(buf[:min(left, int64(len(buf)))])
		left -= int64(n)
	}
	return err
}

func datagrams(addr string) error {
	c, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp", addr)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if err == nil {
			_, err = c.WriteTo(buf[:n], from)
		}
		if err != nil {
			log.Print(err)
		}
	}
}
