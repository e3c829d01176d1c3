package dockertest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/pkg/stdcopy"
	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

func TestMobyClientRunsAContainer(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "mem"} {
		t.Run(network, func(t *testing.T) {
			ctx := short(t)
			d := New(t, Options{Network: network, Images: []string{"busybox"}})
			cli := dial(t, d)
			created, err := cli.ContainerCreate(ctx, client.ContainerCreateOptions{
				Name: "web", Config: &apicontainer.Config{Image: "busybox", Cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			att, err := cli.ContainerAttach(ctx, "web", client.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true})
			if err != nil {
				t.Fatal(err)
			}
			defer att.Close()
			wait := cli.ContainerWait(ctx, created.ID, client.ContainerWaitOptions{Condition: apicontainer.WaitConditionNextExit})
			if _, err := cli.ContainerStart(ctx, "web", client.ContainerStartOptions{}); err != nil {
				t.Fatal(err)
			}
			if out, errOut := split(t, att.Reader); out != "out\n" || errOut != "err\n" {
				t.Errorf("attach = %q, %q; want out and err", out, errOut)
			}
			select {
			case r := <-wait.Result:
				if r.StatusCode != 3 {
					t.Errorf("wait = %d, want 3", r.StatusCode)
				}
			case err := <-wait.Error:
				t.Fatal(err)
			}
			logs, err := cli.ContainerLogs(ctx, "web", client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
			if err != nil {
				t.Fatal(err)
			}
			defer logs.Close()
			if out, errOut := split(t, logs); out != "out\n" || errOut != "err\n" {
				t.Errorf("logs = %q, %q; want out and err", out, errOut)
			}
			if c, _ := d.Find("web"); c.State != "exited" || c.ExitCode != 3 {
				t.Errorf("afterwards web is %s (%d), want exited (3)", c.State, c.ExitCode)
			}
		})
	}
}

func split(t *testing.T, r io.Reader) (stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &errOut, r); err != nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String()
}

func TestStdinGoesThroughCat(t *testing.T) {
	ctx := short(t)
	for _, network := range []string{"tcp", "mem"} {
		t.Run(network, func(t *testing.T) {
			d := New(t, Options{Network: network, Images: []string{"busybox"}})
			cli := dial(t, d)
			if _, err := cli.ContainerCreate(ctx, client.ContainerCreateOptions{Name: "cat", Config: &apicontainer.Config{
				Image: "busybox", Cmd: []string{"cat"}, OpenStdin: true, StdinOnce: true, AttachStdin: true,
			}}); err != nil {
				t.Fatal(err)
			}
			att, err := cli.ContainerAttach(ctx, "cat", client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true})
			if err != nil {
				t.Fatal(err)
			}
			defer att.Close()
			if _, err := cli.ContainerStart(ctx, "cat", client.ContainerStartOptions{}); err != nil {
				t.Fatal(err)
			}
			// Far more than any buffer on the way, so that the backpressure is needed, too.
			sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
			go func() {
				if _, err := att.Conn.Write(sent); err != nil {
					t.Errorf("write: %v", err)
				}
				if err := att.CloseWrite(); err != nil {
					t.Errorf("close write: %v", err)
				}
			}()
			if out, _ := split(t, att.Reader); out != string(sent) {
				t.Errorf("got %d bytes back, sent %d", len(out), len(sent))
			}
			eventually(t, "cat ends with its input", func() bool { c, _ := d.Find("cat"); return c.State == "exited" })
		})
	}
}

func TestExec(t *testing.T) {
	ctx := short(t)
	d := New(t, Options{})
	cli := dial(t, d)
	d.AddContainer(Container{Name: "web"})
	run := func(stdin string, cmd ...string) (out, errOut string, code int) {
		t.Helper()
		e, err := cli.ExecCreate(ctx, "web", client.ExecCreateOptions{AttachStdin: true, AttachStdout: true, AttachStderr: true, Cmd: cmd})
		if err != nil {
			t.Fatal(err)
		}
		att, err := cli.ExecAttach(ctx, e.ID, client.ExecAttachOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer att.Close()
		if _, err := io.WriteString(att.Conn, stdin); err != nil {
			t.Fatal(err)
		}
		if err := att.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		out, errOut = split(t, att.Reader)
		in, err := cli.ExecInspect(ctx, e.ID, client.ExecInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return out, errOut, in.ExitCode
	}
	if out, errOut, code := run("", "sh", "-c", "echo a; echo b >&2; exit 4"); out != "a\n" || errOut != "b\n" || code != 4 {
		t.Errorf("exec = %q, %q, %d; want a, b, 4", out, errOut, code)
	}
	if out, _, code := run("12345", "wc", "-c"); out != "5\n" || code != 0 {
		t.Errorf("wc = %q, %d; want 5, 0", out, code)
	}
	if out, _, code := run("echo hi; false\nexit 6\n", "sh"); out != "hi\n" || code != 6 {
		t.Errorf("shell = %q, %d; want hi, 6", out, code)
	}
	if _, err := cli.ExecInspect(ctx, "nope", client.ExecInspectOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("inspect of no exec: %v, want not found", err)
	}
}

func TestMobyClientReadsEverything(t *testing.T) {
	ctx := short(t)
	for _, version := range []string{"1.41", "1.51"} {
		t.Run(version, func(t *testing.T) {
			d := New(t, Options{Name: "n1", APIVersion: version, Containers: 3, Labels: []string{"zone=a"}})
			cli := dial(t, d)
			info, err := cli.Info(ctx, client.InfoOptions{})
			if err != nil || info.Info.Name != "n1" || info.Info.ContainersRunning != 3 || info.Info.Labels[0] != "zone=a" {
				t.Errorf("info = %+v, %v", info.Info, err)
			}
			list, err := cli.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", "n=2")})
			if err != nil || len(list.Items) != 1 || list.Items[0].Names[0] != "/c2" {
				t.Errorf("list = %+v, %v", list.Items, err)
			}
			in, err := cli.ContainerInspect(ctx, "c2", client.ContainerInspectOptions{})
			if err != nil || !in.Container.State.Running || in.Container.HostConfig.ShmSize != 67108864 {
				t.Errorf("inspect = %+v, %v", in.Container, err)
			}
			nets, err := cli.NetworkList(ctx, client.NetworkListOptions{})
			if err != nil || len(nets.Items) != 3 {
				t.Errorf("networks = %+v, %v", nets.Items, err)
			}
			br, err := cli.NetworkInspect(ctx, "bridge", client.NetworkInspectOptions{})
			if err != nil || len(br.Network.Containers) != 3 {
				t.Errorf("bridge = %+v, %v", br.Network, err)
			}
			imgs, err := cli.ImageList(ctx, client.ImageListOptions{})
			if err != nil || len(imgs.Items) != 1 || imgs.Items[0].RepoTags[0] != "app:1" {
				t.Errorf("images = %+v, %v", imgs.Items, err)
			}
			if df, err := cli.DiskUsage(ctx, client.DiskUsageOptions{Containers: true, Images: true, Volumes: true}); err != nil || df.Containers.TotalCount != 3 {
				t.Errorf("df = %+v, %v", df, err)
			}
			if top, err := cli.ContainerTop(ctx, "c1", client.ContainerTopOptions{}); err != nil || len(top.Processes) != 1 {
				t.Errorf("top = %+v, %v", top, err)
			}
			if hist, err := cli.ImageHistory(ctx, "app:1"); err != nil || len(hist.Items) != 1 {
				t.Errorf("history = %+v, %v", hist, err)
			}
			stats, err := cli.ContainerStats(ctx, "c1", client.ContainerStatsOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer stats.Body.Close()
			if line, err := io.ReadAll(stats.Body); err != nil || !bytes.Contains(line, []byte(`"limit":4294967296`)) {
				t.Errorf("stats = %s, %v", line, err)
			}
		})
	}
}

func TestErrorsHaveTheEnginesKind(t *testing.T) {
	ctx := short(t)
	d := New(t, Options{Images: []string{"busybox"}})
	cli := dial(t, d)
	create := func(name, image string) error {
		_, err := cli.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name, Image: image})
		return err
	}
	if err := create("web", "nope"); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "No such image: nope:latest") {
		t.Errorf("unknown image: %v", err)
	}
	if err := create("web", "busybox"); err != nil {
		t.Fatal(err)
	}
	if err := create("web", "busybox"); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), `The container name "/web" is already in use`) {
		t.Errorf("name taken: %v", err)
	}
	if err := create("!", "busybox"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad name: %v", err)
	}
	if _, err := cli.NetworkRemove(ctx, "bridge", client.NetworkRemoveOptions{}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("remove bridge: %v", err)
	}
}

func TestImagesTravelFromDaemonToDaemon(t *testing.T) {
	ctx := short(t)
	from, to := New(t, Options{}), New(t, Options{})
	id := from.AddImage("team/app:2")
	save, err := dial(t, from).ImageSave(ctx, []string{"team/app:2"})
	if err != nil {
		t.Fatal(err)
	}
	defer save.Close()
	load, err := dial(t, to).ImageLoad(ctx, save)
	if err != nil {
		t.Fatal(err)
	}
	defer load.Close()
	if said, err := io.ReadAll(load); err != nil || !bytes.Contains(said, []byte(`Loaded image: team/app:2`)) {
		t.Errorf("load said %s, %v", said, err)
	}
	if diff := cmp.Diff(map[string]string{"team/app:2": id}, to.Images()); diff != "" {
		t.Errorf("images after load (-want +got)\n%s", diff)
	}
}

func TestPull(t *testing.T) {
	ctx := short(t)
	d := New(t, Options{Pullable: []string{"nginx", "reg.example:5000/app:1"}})
	cli := dial(t, d)
	pull := func(ref string) string {
		t.Helper()
		r, err := cli.ImagePull(ctx, ref, client.ImagePullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		said, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(said)
	}
	if said := pull("nginx"); !strings.Contains(said, "Pulling from library/nginx") || !strings.Contains(said, "Status: Downloaded newer image for nginx:latest") {
		t.Errorf("pull said %s", said)
	}
	if said := pull("nginx"); !strings.Contains(said, "Status: Image is up to date for nginx:latest") {
		t.Errorf("second pull said %s", said)
	}
	if _, err := cli.ImagePull(ctx, "nope", client.ImagePullOptions{}); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "pull access denied for nope") {
		t.Errorf("pull of nope: %v", err)
	}
	if _, err := cli.ImagePull(ctx, "reg.example:5000/app:2", client.ImagePullOptions{}); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "manifest unknown") {
		t.Errorf("pull of app:2: %v", err)
	}
}

func TestCopyInAndOut(t *testing.T) {
	ctx := short(t)
	d := New(t, Options{})
	d.AddContainer(Container{Name: "web"})
	cli := dial(t, d)
	if _, err := cli.CopyToContainer(ctx, "web", client.CopyToContainerOptions{DestinationPath: "/tmp", Content: bytes.NewReader(tarOf("note", []byte("hi")))}); err != nil {
		t.Fatal(err)
	}
	got, err := cli.CopyFromContainer(ctx, "web", client.CopyFromContainerOptions{SourcePath: "/tmp/note"})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Content.Close()
	if got.Stat.Name != "note" || got.Stat.Size != 2 {
		t.Errorf("stat = %+v", got.Stat)
	}
	tr := tar.NewReader(got.Content)
	if h, err := tr.Next(); err != nil || h.Name != "note" {
		t.Fatalf("tar: %+v, %v", h, err)
	}
	if data, err := io.ReadAll(tr); err != nil || string(data) != "hi" {
		t.Errorf("content = %q, %v", data, err)
	}
	if _, err := cli.ContainerStatPath(ctx, "web", client.ContainerStatPathOptions{Path: "/nope"}); !errdefs.IsNotFound(err) {
		t.Errorf("stat of nothing: %v", err)
	}
	diff, err := cli.ContainerDiff(ctx, "web", client.ContainerDiffOptions{})
	if err != nil || len(diff.Changes) != 2 || diff.Changes[1].Path != "/tmp/note" {
		t.Errorf("diff = %+v, %v", diff, err)
	}
}

func TestNetworksAndVolumes(t *testing.T) {
	ctx := short(t)
	d := New(t, Options{Images: []string{"busybox"}})
	cli := dial(t, d)
	made, err := cli.NetworkCreate(ctx, "back", client.NetworkCreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	id := d.AddContainer(Container{Name: "web", HostConfig: map[string]any{"Binds": []string{"data:/data"}}})
	if _, err := cli.NetworkConnect(ctx, "back", client.NetworkConnectOptions{Container: "web", EndpointConfig: &apinetwork.EndpointSettings{Aliases: []string{"db"}}}); err != nil {
		t.Fatal(err)
	}
	in, err := cli.ContainerInspect(ctx, "web", client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	back := in.Container.NetworkSettings.Networks["back"]
	if back.NetworkID != made.ID || !back.IPAddress.IsValid() || back.Aliases[0] != "db" {
		t.Errorf("endpoint = %+v", back)
	}
	if _, err := cli.NetworkRemove(ctx, "back", client.NetworkRemoveOptions{}); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "has active endpoints") {
		t.Errorf("remove network in use: %v", err)
	}
	if _, err := cli.VolumeRemove(ctx, "data", client.VolumeRemoveOptions{}); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), id) {
		t.Errorf("remove volume in use: %v", err)
	}
	if _, err := cli.ContainerRemove(ctx, "web", client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
		t.Fatal(err)
	}
	vols, err := cli.VolumeList(ctx, client.VolumeListOptions{Filters: client.Filters{}.Add("dangling", "true")})
	if err != nil || len(vols.Items) != 1 || vols.Items[0].Name != "data" {
		t.Errorf("volumes left = %+v, %v; want the named one", vols.Items, err)
	}
	if _, err := cli.NetworkRemove(ctx, "back", client.NetworkRemoveOptions{}); err != nil {
		t.Error(err)
	}
}

func TestBuild(t *testing.T) {
	ctx := short(t)
	d := New(t, Options{Images: []string{"busybox"}})
	cli := dial(t, d)
	build := func(dockerfile string) string {
		t.Helper()
		res, err := cli.ImageBuild(ctx, bytes.NewReader(tarOf("Dockerfile", []byte(dockerfile))), client.ImageBuildOptions{Tags: []string{"built:1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		said, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(said)
	}
	if said := build("FROM nope\n"); !strings.Contains(said, `"errorDetail":{"message":"pull access denied for nope`) {
		t.Errorf("build from nope said %s", said)
	}
	if said := build("FROM busybox\nLABEL a=b\nCMD [\"sleep\", \"7\"]\n"); !strings.Contains(said, `Successfully tagged built:1`) {
		t.Errorf("build said %s", said)
	}
	d.AddContainer(Container{Name: "bb", Image: "built:1", State: "created"})
	if c, _ := d.Find("bb"); c.Labels["a"] != "b" {
		t.Errorf("container of the built image: %+v", c)
	}
}

func TestWaitForRemoval(t *testing.T) {
	ctx := short(t)
	d := New(t, Options{})
	d.AddContainer(Container{Name: "job", HostConfig: map[string]any{"AutoRemove": true}})
	cli := dial(t, d)
	wait := cli.ContainerWait(ctx, "job", client.ContainerWaitOptions{Condition: apicontainer.WaitConditionRemoved})
	d.Exit("job", 9)
	select {
	case r := <-wait.Result:
		if r.StatusCode != 9 {
			t.Errorf("wait = %d, want 9", r.StatusCode)
		}
	case err := <-wait.Error:
		t.Fatal(err)
	}
	if _, ok := d.Find("job"); ok {
		t.Error("job is still there")
	}
}

func TestLogsFollowTailAndTimestamps(t *testing.T) {
	ctx := short(t)
	d := New(t, Options{})
	d.AddContainer(Container{Name: "web"})
	cli := dial(t, d)
	for i := range 5 {
		d.Print("web", fmt.Sprint("line ", i))
	}
	follow, err := cli.ContainerLogs(ctx, "web", client.ContainerLogsOptions{ShowStdout: true, Follow: true, Tail: "2"})
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close()
	d.Print("web", "line 5")
	d.Exit("web", 0)
	if out, _ := split(t, follow); out != "line 3\nline 4\nline 5\n" {
		t.Errorf("follow = %q", out)
	}
	stamped, err := cli.ContainerLogs(ctx, "web", client.ContainerLogsOptions{ShowStdout: true, Tail: "1", Timestamps: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stamped.Close()
	if out, _ := split(t, stamped); !strings.HasSuffix(out, "Z line 5\n") {
		t.Errorf("with timestamps = %q", out)
	}
	if _, err := cli.ContainerLogs(ctx, "web", client.ContainerLogsOptions{}); err == nil {
		t.Error("logs of no stream: no error")
	} else if errors.Is(err, io.EOF) || !errdefs.IsInvalidArgument(err) {
		t.Errorf("logs of no stream: %v", err)
	}
}
