package provision

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOSRelease(t *testing.T) {
	for text, want := range map[string]struct {
		id     string
		family family
		pretty string
	}{
		debianLike("ubuntu", "debian"):                           {"ubuntu", debian, "ubuntu 1"},
		debianLike("linuxmint", `"ubuntu debian"`):               {"linuxmint", debian, "linuxmint 1"},
		debianLike("pop", `'ubuntu debian'`):                     {"pop", debian, "pop 1"},
		debianLike(`"rocky"`, `"rhel centos fedora"`):            {"rocky", redhat, "rocky 1"},
		debianLike(`"almalinux"`, `"rhel centos fedora"`):        {"almalinux", redhat, "almalinux 1"},
		debianLike(`"ol"`, `"fedora"`):                           {"ol", redhat, "ol 1"},
		debianLike(`"amzn"`, `"fedora"`):                         {"amzn", redhat, "amzn 1"},
		debianLike("opensuse-leap", `"suse opensuse"`):           {"opensuse-leap", suse, "opensuse-leap 1"},
		debianLike("manjaro", "arch"):                            {"manjaro", arch, "manjaro 1"},
		debianLike("flatcar", "coreos"):                          {"flatcar", flatcar, "flatcar 1"},
		debianLike("postmarketos", "alpine"):                     {"postmarketos", alpine, "postmarketos 1"},
		debianLike("haiku", ""):                                  {"haiku", unknown, "haiku 1"},
		"":                                                       {"", unknown, "an unknown system"},
		"garbage\n=\n a b=c\n# ID=no\nID=alpine # yes\nID_LIKE":  {"alpine", alpine, "alpine"},
		`ID=arch` + "\n" + `PRETTY_NAME="A \"b\" \$c \x \\ 'd'"`: {"arch", arch, `A "b" $c \x \ 'd'`},
		"ID='arch'\r\nPRETTY_NAME=a\\ b\"c d\"'e f'\r\n":         {"arch", arch, "a bc de f"},
	} {
		os := parseOSRelease(text)
		if os.id() != want.id || os.family() != want.family || os.pretty() != want.pretty {
			t.Errorf("%q = %q, %q, %q, want %+v", text, os.id(), os.family(), os.pretty(), want)
		}
	}
}

func debianLike(id, like string) string {
	return "NAME=" + id + "\nVERSION_ID=\"1\"\nID=" + id + "\nID_LIKE=" + like + "\n"
}

func TestExecStart(t *testing.T) {
	for name, tt := range map[string]struct{ units, want string }{
		"the unit's own":            {"# /lib/systemd/system/docker.service\n[Service]\nType=notify\nExecStart=/usr/bin/dockerd -H fd:// $OPTIONS\n", "/usr/bin/dockerd|-H|fd://|$OPTIONS"},
		"several lines":             {"[Service]\nExecStart=/usr/bin/env PATH=${X} \\\n  ; no\n  /usr/bin/dockerd \\\n --host=fd:// \\\n  $A\nExecReload=/bin/kill\n", "/usr/bin/env|PATH=${X}|/usr/bin/dockerd|--host=fd://|$A"},
		"a drop-in replaces it":     {"[Service]\nExecStart=/a\n# /etc/systemd/system/docker.service.d/o.conf\n[Service]\nExecStart=\nExecStart=/b \"c d\" 'e'\n", `/b|"c d"|'e'`},
		"ours and docker-machine's": {"[Service]\nExecStart=/a\n# " + oldDropIn + "\n[Service]\nExecStart=\nExecStart=/m\n# " + dropIn + "\n[Service]\nExecStart=\nExecStart=/b\n# /etc/systemd/system/docker.service.d/zzz.conf\n[Service]\nLimitCORE=1\n", "/a"},
		"another section's":         {"[Unit]\nExecStart=/a\n", ""},
		"nothing":                   {"", ""},
	} {
		if got := strings.Join(execStart(tt.units), "|"); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestSplitCommand(t *testing.T) {
	c := splitCommand(splitWords(`/d -H fd:// -Htcp://a --host=b --host c -H=d --tls --tlsverify=true --tlscacert x --tlskey=y --label "k=v w" ` +
		`--registry-mirror m --insecure-registry=i -s overlay2 --config-file /c.json --containerd=/c $O --exec-opt native.cgroupdriver=systemd`))
	want := engineCommand{
		rest:  []string{"/d", "--config-file", "/c.json", "--containerd=/c", "$O", "--exec-opt", "native.cgroupdriver=systemd"},
		hosts: []string{"fd://", "tcp://a", "b", "c", "d"}, labels: []string{"k=v w"}, mirrors: []string{"m"}, insecure: []string{"i"},
		storageDriver: "overlay2", configFile: "/c.json",
	}
	if diff := cmp.Diff(want, c, cmp.AllowUnexported(engineCommand{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestQuotesForUnits(t *testing.T) {
	for in, want := range map[string]string{
		"--a=b": "--a=b", "--log-opt=tag={{.Name}}": `"--log-opt=tag={{.Name}}"`, "--a=100%$x": "--a=100%%$$x", `--a="b\`: `"--a=\"b\\"`, "": `""`,
	} {
		if got := unitQuote(in); got != want {
			t.Errorf("unitQuote(%s) = %s, want %s", in, got, want)
		}
	}
	if got, want := unitEnv(`A=b $c%d"e\`), `"A=b $c%%d\"e\\"`; got != want {
		t.Errorf("unitEnv = %s, want %s", got, want)
	}
}

func TestOverride(t *testing.T) {
	for name, tt := range map[string]struct{ doc, flag, want string }{
		"a text":              {`{"log-driver":"none"}`, "log-driver=local", `{"log-driver":"local"}`},
		"the same text":       {`{"log-driver" : "none"}`, "log-driver=none", ``},
		"a switch":            {`{"icc":true}`, "icc=false", `{"icc":false}`},
		"a switch turned on":  {`{"icc":false}`, "icc", `{"icc":true}`},
		"a number":            {`{"max-concurrent-downloads":3}`, "max-concurrent-downloads=5", `{"max-concurrent-downloads":5}`},
		"not a number":        {`{"max-concurrent-downloads":3}`, "max-concurrent-downloads=x", "error"},
		"a list gets longer":  {`{"dns":["1.1.1.1"]}`, "dns=9.9.9.9", `{"dns":["1.1.1.1","9.9.9.9"]}`},
		"a map gets a key":    {`{"log-opts":{"a":"b"}}`, "log-opt=c=d", `{"log-opts":{"a":"b","c":"d"}}`},
		"what is more":        {`{"runtimes":{"a":{"path":"b"}}}`, "add-runtime=a=c", "error"},
		"a list that is none": {`{"dns":[1]}`, "dns=9.9.9.9", "error"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := parseDocument([]byte(tt.doc))
			if err != nil {
				t.Fatal(err)
			}
			flag, value, has := strings.Cut(tt.flag, "=")
			got := ""
			switch err := d.override(configKey(flag), value, has); {
			case err != nil:
				got = "error"
			case d.changed:
				got = strings.NewReplacer("\n", "", " ", "").Replace(string(d.encode()))
			}
			if got != tt.want {
				t.Errorf("= %s, want %s", got, tt.want)
			}
		})
	}
}

func FuzzDocument(f *testing.F) {
	for _, s := range []string{"", "{}", `{"a":1.0,"b":[1,2],"a":{"c":null}}`, `{"labels":["a=b"]}`, "[]", `{"a":1} x`, `{"a"`, "null", `{"hosts":7}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseDocument([]byte(text))
		if err != nil {
			return
		}
		before := len(d.keys)
		d.add("labels", []string{"berth=1"}, sameLabel)
		if d.err != nil {
			return
		}
		d.set("tlsverify", true)
		again, err := parseDocument(d.encode())
		if err != nil {
			t.Fatalf("%q became %q, which is no document: %v", text, d.encode(), err)
		}
		if len(again.keys) < before {
			t.Errorf("%q lost keys: %q", text, again.keys)
		}
		again.add("labels", []string{"berth=1"}, sameLabel)
		again.set("tlsverify", true)
		if again.changed {
			t.Errorf("%q is changed by the same once more", text)
		}
	})
}

// A word must come out of a shell as it went in, twice for OpenRC.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a", "a b", "it's", "$(reboot)", `\`, `"`, "\n", "*", "~", "a;b", "ä"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, word string) {
		if strings.ContainsRune(word, 0) {
			return
		}
		out, err := exec.Command("sh", "-c", "eval printf '%s' "+quote("."+quote(word)+".")).Output()
		if err != nil || string(out) != "."+word+"." {
			t.Errorf("%q came out as %q (%v)", word, out, err)
		}
	})
}

func TestEveryInstallScriptIsShell(t *testing.T) {
	for _, os := range []osRelease{
		{"ID": "debian"}, {"ID": "ubuntu"}, {"ID": "linuxmint", "ID_LIKE": "ubuntu"}, {"ID": "fedora"}, {"ID": "rhel"}, {"ID": "rocky"}, {"ID": "ol"}, {"ID": "amzn"},
		{"ID": "opensuse-leap"}, {"ID": "sles", "VERSION_ID": "15.6"}, {"ID": "alpine"}, {"ID": "arch"},
	} {
		for _, e := range []Engine{{}, {InstallURL: DefaultURL}, {InstallURL: Distro}, {InstallURL: "http://x/y z"}, {InstallURL: Distro, Version: "28.5"}} {
			h := newHost(nil, Config{Engine: e})
			h.os, h.family = os, os.family()
			script, err := h.installScript()
			if err != nil {
				if e.Version == "" || h.family != suse && h.family != arch {
					t.Errorf("%v %v: %v", os, e, err)
				}
				continue
			}
			if out, err := exec.Command("sh", "-n", "-c", prelude+script).CombinedOutput(); err != nil {
				t.Errorf("%v %v: %v %s\n%s", os, e, err, out, script)
			}
			if e.Version != "" && !strings.Contains(script, "28.5") {
				t.Errorf("%v: the version is not asked for:\n%s", os, script)
			}
		}
		h := newHost(nil, Config{})
		h.os, h.family = os, os.family()
		if script, err := h.upgradeScript(); err != nil {
			if h.family != arch {
				t.Errorf("upgrade %v: %v", os, err)
			}
		} else if out, err := exec.Command("sh", "-n", "-c", prelude+script).CombinedOutput(); err != nil {
			t.Errorf("upgrade %v: %v %s", os, err, out)
		}
	}
}

func TestOutputKeepsTheEndOfALongTextAndTellsCommandsOnce(t *testing.T) {
	var told []string
	o := &output{shown: func(c string) { told = append(told, c) }}
	for _, p := range []string{"$ one", " more\nx\n", "$ two\n", strings.Repeat("y", maxOutput), "\n$ three\nend\n"} {
		if n, err := o.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("write = %d, %v", n, err)
		}
	}
	if diff := cmp.Diff([]string{"one more", "two", "three"}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	command, said := lastCommand(o.String())
	if command != "three" || said != "end\n" || o.text.Len() > maxOutput {
		t.Errorf("last command = %q, %q of %d bytes", command, said, o.text.Len())
	}
}
