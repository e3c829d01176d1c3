package dockertest

import (
	"net/http"
	"runtime"
	"time"
)

// notManager is how an engine outside of a swarm answers all of Swarm mode.
const notManager = `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`

// getPing answers GET and HEAD /_ping.
func (d *Daemon) getPing(w http.ResponseWriter, r *request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if d.speaks("1.42") {
		h.Set("Builder-Version", "2")
		h.Set("Swarm", "inactive")
	}
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, _ = w.Write([]byte("OK")) // a client that has gone needs no answer
	return nil
}

// getVersion answers GET /version.
func (d *Daemon) getVersion(w http.ResponseWriter, _ *request) error {
	const kernel, built, commit = "6.1.0-dockertest", "2024-01-01T00:00:00.000000000+00:00", "5d6db84"
	writeJSON(w, http.StatusOK, map[string]any{
		"Platform": map[string]string{"Name": ""}, "Version": d.opt.ServerVersion, "ApiVersion": d.opt.APIVersion,
		"MinAPIVersion": d.opt.MinAPIVersion, "GitCommit": commit, "GoVersion": runtime.Version(), "Os": "linux", "Arch": "amd64",
		"KernelVersion": kernel, "BuildTime": built,
		"Components": []any{map[string]any{"Name": "Engine", "Version": d.opt.ServerVersion, "Details": map[string]string{
			"ApiVersion": d.opt.APIVersion, "Arch": "amd64", "BuildTime": built, "Experimental": "false", "GitCommit": commit,
			"GoVersion": runtime.Version(), "KernelVersion": kernel, "MinAPIVersion": d.opt.MinAPIVersion, "Os": "linux",
		}}},
	})
	return nil
}

// getInfo answers GET /info.
func (d *Daemon) getInfo(w http.ResponseWriter, _ *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	count := map[string]int{}
	for _, c := range d.order {
		switch c.status {
		case "running", "restarting":
			count["running"]++
		case "paused":
			count["paused"]++
		default:
			count["stopped"]++
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"ID": d.id, "Containers": len(d.order), "ContainersRunning": count["running"], "ContainersPaused": count["paused"],
		"ContainersStopped": count["stopped"], "Images": len(d.images), "Driver": d.storageDriver(),
		"DriverStatus": [][2]string{{"Backing Filesystem", "extfs"}, {"Supports d_type", "true"}, {"Native Overlay Diff", "true"}},
		"Plugins": map[string]any{
			"Volume": []string{"local"}, "Network": []string{"bridge", "host", "ipvlan", "macvlan", "null", "overlay"},
			"Authorization": nil, "Log": []string{"json-file", "local"},
		},
		"MemoryLimit": true, "SwapLimit": true, "KernelMemory": true, "KernelMemoryTCP": true, "CpuCfsPeriod": true, "CpuCfsQuota": true,
		"CPUShares": true, "CPUSet": true, "PidsLimit": true, "IPv4Forwarding": true, "BridgeNfIptables": true, "BridgeNfIp6tables": true,
		"Debug": false, "NFd": 32, "OomKillDisable": true, "NGoroutines": 41, "SystemTime": timestamp(time.Now().UTC()),
		"LoggingDriver": "json-file", "CgroupDriver": "cgroupfs", "CgroupVersion": "1", "NEventsListener": len(d.events.subs),
		"KernelVersion": "6.1.0-dockertest", "OperatingSystem": "Debian GNU/Linux 12 (bookworm)", "OSVersion": "12", "OSType": "linux",
		"Architecture": "x86_64", "IndexServerAddress": "https://index.docker.io/v1/",
		"RegistryConfig": map[string]any{
			"AllowNondistributableArtifactsCIDRs": []string{}, "AllowNondistributableArtifactsHostnames": []string{},
			"InsecureRegistryCIDRs": []string{"127.0.0.0/8"}, "Mirrors": []string{},
			"IndexConfigs": map[string]any{"docker.io": map[string]any{"Name": "docker.io", "Mirrors": []string{}, "Secure": true, "Official": true}},
		},
		"NCPU": d.opt.NCPU, "MemTotal": d.opt.MemTotal, "GenericResources": nil, "DockerRootDir": "/var/lib/docker", "HttpProxy": "",
		"HttpsProxy": "", "NoProxy": "", "Name": d.opt.Name, "Labels": d.opt.Labels, "ExperimentalBuild": false,
		"ServerVersion": d.opt.ServerVersion, "Runtimes": map[string]any{"runc": map[string]string{"path": "runc"}}, "DefaultRuntime": "runc",
		"Swarm":              d.swarmInfo(),
		"LiveRestoreEnabled": false, "Isolation": "", "InitBinary": "docker-init", "ContainerdCommit": map[string]string{"ID": "", "Expected": ""},
		"RuncCommit": map[string]string{"ID": "", "Expected": ""}, "InitCommit": map[string]string{"ID": "", "Expected": ""},
		"SecurityOptions": []string{"name=seccomp,profile=default"}, "Warnings": nil,
	})
	return nil
}

// getDiskUsage answers GET /system/df in the form that was valid before API 1.52.
func (d *Daemon) getDiskUsage(w http.ResponseWriter, r *request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	images, containers, volumes := []imageSummary{}, []summary{}, []any{}
	size := int64(0)
	for _, img := range d.sortedImages() {
		row := d.imageSummary(r, img)
		row.Containers, row.SharedSize = int64(len(d.imageUsers(img))), 0
		images = append(images, row)
		size += img.size
	}
	for _, c := range d.order {
		containers = append(containers, c.summary(true))
	}
	for _, name := range sortedKeys(d.volumes) {
		v := d.volumes[name]
		volumes = append(volumes, struct {
			*volume
			UsageData map[string]int
		}{v, map[string]int{"RefCount": len(d.volumeUsers(v)), "Size": 0}})
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"LayersSize": size, "Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": nil, "BuilderSize": 0,
	})
	return nil
}

// postAuth answers POST /auth: every name and password is right, but an empty one.
func (d *Daemon) postAuth(w http.ResponseWriter, r *request) error {
	var req struct{ Username, Password string }
	if err := r.decode(&req, http.StatusInternalServerError, "EOF"); err != nil {
		return err
	}
	if req.Username == "" || req.Password == "" {
		return fail(http.StatusUnauthorized, "Get \"https://registry-1.docker.io/v2/\": unauthorized: incorrect username or password")
	}
	writeJSON(w, http.StatusOK, struct{ IdentityToken, Status string }{"", "Login Succeeded"})
	return nil
}

// getPlugins answers GET /plugins: there are none.
func (d *Daemon) getPlugins(w http.ResponseWriter, _ *request) error {
	writeJSON(w, http.StatusOK, []struct{}{})
	return nil
}

// refuseUpgrade answers /session and /grpc: BuildKit is not simulated.
func (d *Daemon) refuseUpgrade(_ http.ResponseWriter, r *request) error {
	status := http.StatusBadRequest
	if r.path == "/grpc" {
		status = http.StatusInternalServerError
	}
	return fail(status, "no upgrade proto in request")
}

func (d *Daemon) notInSwarm(http.ResponseWriter, *request) error {
	return fail(http.StatusServiceUnavailable, "%s", notManager)
}

func (d *Daemon) storageDriver() string {
	if d.opt.ContainerdStore {
		return "overlayfs"
	}
	return "overlay2"
}
