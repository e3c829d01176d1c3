// Command testcontainers drives Testcontainers for Go through the endpoint that DOCKER_HOST names, and then dies as a test
// does that is killed, so that the reaper has to clean up. Its argument is the node that everything has to be on: mapped
// ports are asked for at that node's address (TESTCONTAINERS_HOST_OVERRIDE).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/exec"
	"github.com/testcontainers/testcontainers-go/network"
	"github.com/testcontainers/testcontainers-go/wait"
)

func main() {
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
	fmt.Println("OK: the page, the file and the other container")
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, node string) error {
	if err := begin(ctx, node); err != nil {
		return fmt.Errorf("begin the session on %s: %w", node, err)
	}
	n, err := network.New(ctx)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	web, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{Started: true, ContainerRequest: testcontainers.ContainerRequest{
		Image:        "busybox",
		Cmd:          []string{"sh", "-c", "mkdir /w; echo page >/w/index.html; echo ready; exec httpd -f -p 80 -h /w"},
		ExposedPorts: []string{"80/tcp"},
		Networks:     []string{n.Name}, NetworkAliases: map[string][]string{n.Name: {"web"}},
		Files:      []testcontainers.ContainerFile{{Reader: strings.NewReader("a file"), ContainerFilePath: "/copied", FileMode: 0o644}},
		WaitingFor: wait.ForAll(wait.ForLog("ready"), wait.ForListeningPort("80/tcp"), wait.ForHTTP("/").WithPort("80/tcp")).WithDeadline(30 * time.Second),
	}})
	if err != nil {
		return fmt.Errorf("web: %w", err)
	}
	code, out, err := web.Exec(ctx, []string{"cat", "/copied"}, exec.Multiplexed())
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	if text, err := io.ReadAll(out); err != nil || code != 0 || string(text) != "a file" {
		return fmt.Errorf("exec: exit %d, %q, %w", code, text, err)
	}
	other, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{Started: true, ContainerRequest: testcontainers.ContainerRequest{
		Image: "busybox", Cmd: []string{"sh", "-c", "wget -qO- http://web/; exec sleep 1000"}, Networks: []string{n.Name},
		Mounts:     testcontainers.Mounts(testcontainers.VolumeMount("tc"+testcontainers.SessionID()[:8], "/v")),
		WaitingFor: wait.ForLog("page").WithStartupTimeout(30 * time.Second),
	}})
	if err != nil {
		return fmt.Errorf("the other container: %w", err)
	}
	file, err := other.CopyFileFromContainer(ctx, "/etc/passwd")
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	defer file.Close()
	if text, err := io.ReadAll(file); err != nil || len(text) == 0 {
		return errors.Join(errors.New("the copied file is empty"), err)
	}
	return nil
}

// begin makes the session's first container, where all others follow it.
func begin(ctx context.Context, node string) error {
	c, err := client.New(client.FromEnv)
	if err != nil {
		return err
	}
	_, err = c.ContainerCreate(ctx, client.ContainerCreateOptions{Config: &container.Config{
		Image: "busybox", Env: []string{"constraint:node==" + node},
		Labels: testcontainers.GenericLabels(),
	}})
	return errors.Join(err, c.Close())
}
