// Command ryuk stands in for Testcontainers' reaper in tests that have no registry to take the real one from.
//
// It speaks the reaper's protocol: a client sends a line of filters and is told ACK; once the last client has left and none
// comes back, all that the filters name is removed from the engine behind /var/run/docker.sock.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	firstClient = time.Minute     // how long to wait for one
	reconnect   = 2 * time.Second // how long the last one may be away
)

func main() {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("Started") // what Testcontainers waits for
	filters, err := collect(l)
	if err != nil {
		log.Fatal(err)
	}
	if err := reap(filters); err != nil {
		log.Fatal(err)
	}
}

// collect serves clients until all have left, and returns what they asked for.
func collect(l net.Listener) (map[string]bool, error) {
	came, left, asked, broken := make(chan struct{}), make(chan struct{}), make(chan string), make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				broken <- err
				return
			}
			came <- struct{}{}
			go func() {
				defer func() { left <- struct{}{} }()
				listen(c, asked)
			}()
		}
	}()
	filters := map[string]bool{}
	clients := 0
	patience := time.NewTimer(firstClient)
	for {
		select {
		case <-came:
			clients++
			patience.Stop()
		case <-left:
			if clients--; clients == 0 {
				patience.Reset(reconnect)
			}
		case f := <-asked:
			filters[f] = true
		case <-patience.C:
			return filters, nil
		case err := <-broken:
			return nil, err
		}
	}
}

// listen reads a client's filters until it leaves.
func listen(c net.Conn, asked chan<- string) {
	defer c.Close()
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		asked <- lines.Text()
		if _, err := io.WriteString(c, "ACK\n"); err != nil {
			return // it has left
		}
	}
}

// docker is the engine of the node that this runs on.
var docker = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", "/var/run/docker.sock")
}}}

// reap removes what has the labels.
func reap(filters map[string]bool) error {
	var errs error
	for f := range filters {
		q, err := url.ParseQuery(f)
		if err != nil {
			return err
		}
		labels, err := json.Marshal(map[string][]string{"label": q["label"]})
		if err != nil {
			return err
		}
		query := "filters=" + url.QueryEscape(string(labels))
		var containers, networks []struct {
			ID     string `json:"Id"`
			Labels map[string]string
		}
		var volumes struct{ Volumes []struct{ Name string } }
		errs = errors.Join(errs, list("/containers/json?all=1&"+query, &containers))
		for _, c := range containers {
			if c.Labels["org.testcontainers.ryuk"] == "true" {
				continue // this one
			}
			errs = errors.Join(errs, remove("/containers/"+c.ID+"?force=1&v=1"))
		}
		errs = errors.Join(errs, list("/networks?"+query, &networks), list("/volumes?"+query, &volumes))
		for _, n := range networks {
			errs = errors.Join(errs, remove("/networks/"+n.ID))
		}
		for _, v := range volumes.Volumes {
			errs = errors.Join(errs, remove("/volumes/"+v.Name))
		}
	}
	return errs
}

func list(path string, into any) error {
	res, err := ask(http.MethodGet, path, http.StatusOK)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(res.Body).Decode(into)
}

func remove(path string) error {
	res, err := ask(http.MethodDelete, path, http.StatusNoContent)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// ask makes a request that has to be answered with a status.
func ask(method, path string, status int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, "http://docker"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := docker.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != status {
		return nil, errors.Join(fmt.Errorf("%s %s: %s", method, path, res.Status), res.Body.Close())
	}
	return res, nil
}
