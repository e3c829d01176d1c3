package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"strconv"
	"strings"
)

// configVersion is the version of config.json that docker-machine 0.16 writes, its last.
const configVersion = 3

// defaultEnginePort is where an engine listens when nothing else is said.
const defaultEnginePort = 2376

// Machine is one record of the store, as config.json holds it. Whatever else that file holds is kept and written back.
type Machine struct {
	Name       string
	DriverName string
	Instance   Instance
	Engine     EngineOptions
	Swarm      SwarmOptions
	Auth       AuthOptions
	// Unfinished is the step at which create stopped, or where it is just now; "" for a machine that was made whole.
	// Problem is why it stopped.
	Unfinished, Problem string
	// Plain says that nothing is changed on the host: its engine is used as it is, through SSH.
	Plain bool
	// Services says that what Swarm asks for runs on the host as services of ours. Where it does not, docker-machine may have seen to
	// it in its own way, or nobody has.
	Services bool
	Life     Lifetime

	doc object // the file as it was read
}

// SwarmOptions are classic Swarm's --swarm-* flags, in config.json's spelling.
type SwarmOptions struct {
	IsSwarm            bool
	Address            string
	Discovery          string
	Agent              bool
	Master             bool
	Host               string
	Image              string
	Strategy           string
	Heartbeat          int
	Overcommit         float64
	ArbitraryFlags     []string
	ArbitraryJoinFlags []string
	Env                []string
	IsExperimental     bool
}

// AuthOptions are the paths of a machine's certificates, in config.json's spelling. All are absolute.
type AuthOptions struct {
	CertDir              string
	CaCertPath           string
	CaPrivateKeyPath     string
	CaCertRemotePath     string
	ServerCertPath       string
	ServerKeyPath        string
	ClientKeyPath        string
	ServerCertRemotePath string
	ServerKeyRemotePath  string
	ClientCertPath       string
	ServerCertSANs       []string
	StorePath            string
}

// own is what berth notes in config.json beside docker-machine's fields; docker-machine does not look at it.
type own struct {
	Unfinished string    `json:",omitempty"`
	Problem    string    `json:",omitempty"`
	Plain      bool      `json:",omitempty"`
	Services   bool      `json:",omitempty"`
	Life       lifeNote  `json:",omitzero"`
	Host       *hostNote `json:",omitempty"`
}

// hostNote is what an Instance holds that has no place in the Driver object. Where that object is the driver's alone (Whole), it
// is all but Raw.
type hostNote struct {
	Whole      bool   `json:",omitempty"`
	IPAddress  string `json:",omitempty"`
	EnginePort int    `json:",omitempty"`
	InnerPort  int    `json:",omitempty"`
	URL        string `json:",omitempty"`
	SSHHost    string `json:",omitempty"`
	SSHUser    string `json:",omitempty"`
	SSHPort    int    `json:",omitempty"`
	SSHKeyPath string `json:",omitempty"`
}

// driverBase are the fields that every driver of docker-machine has; a driver's further fields stand beside them.
type driverBase struct {
	IPAddress      string
	MachineName    string
	SSHUser        string
	SSHPort        int
	SSHKeyPath     string
	StorePath      string
	SwarmMaster    bool
	SwarmHost      string
	SwarmDiscovery string
	EnginePort     int `json:",omitempty"`
}

// object is a JSON object of which only the fields that one knows are looked into.
type object map[string]json.RawMessage

// child is the object under key; an absent one or null is empty.
func (o object) child(key string) (object, error) {
	c := object{}
	if raw, ok := o[key]; ok {
		if err := json.Unmarshal(raw, &c); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	if c == nil {
		c = object{}
	}
	return c, nil
}

func (o object) set(key string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	o[key] = raw
	return nil
}

// read decodes the value under key into v; absent leaves v as it is.
func (o object) read(key string, v any) error {
	raw, ok := o[key]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// overlay writes the fields of v over the object under key and leaves that object's other fields alone.
func (o object) overlay(key string, v any) error {
	old, err := o.child(key)
	if err != nil {
		return err
	}
	if err := old.merge(v); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return o.set(key, old)
}

func (o object) merge(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, &o)
}

// parse reads a config.json. The folder's name wins over the one in the file, as it does for docker-machine.
func parse(name, dir string, data []byte) (*Machine, error) {
	m := &Machine{Name: name, doc: object{}}
	if err := json.Unmarshal(data, &m.doc); err != nil {
		return nil, err
	}
	version := 0
	if err := m.doc.read("ConfigVersion", &version); err != nil {
		return nil, err
	}
	if err := adopt(m.doc, version, dir); err != nil {
		return nil, err
	}
	if err := m.doc.read("DriverName", &m.DriverName); err != nil {
		return nil, err
	}
	if m.DriverName == "" {
		return nil, errors.New("it names no driver")
	}
	if err := m.readOptions(); err != nil {
		return nil, err
	}
	note := own{}
	if err := m.doc.read("Berth", &note); err != nil {
		return nil, err
	}
	err := m.readInstance(dir, note.Host)
	if err != nil {
		return nil, err
	}
	m.Unfinished, m.Problem, m.Plain, m.Services = note.Unfinished, note.Problem, note.Plain, note.Services
	m.Life, err = note.Life.read()
	return m, err
}

func (m *Machine) readOptions() error {
	host, err := m.doc.child("HostOptions")
	if err != nil {
		return err
	}
	return errors.Join(
		host.read("EngineOptions", &m.Engine),
		host.read("SwarmOptions", &m.Swarm),
		host.read("AuthOptions", &m.Auth),
	)
}

// baseKeys are the names of driverBase's fields.
func baseKeys() object {
	keys := object{}
	if err := keys.merge(driverBase{EnginePort: 1}); err != nil {
		panic(err) // a struct of plain fields encodes
	}
	return keys
}

func (m *Machine) readInstance(dir string, note *hostNote) error {
	if note != nil && note.Whole {
		return m.readWhole(dir, *note)
	}
	base := driverBase{}
	if err := m.doc.read("Driver", &base); err != nil {
		return err
	}
	m.Instance = Instance{
		Name: m.Name, Dir: dir, IPAddress: base.IPAddress, EnginePort: base.EnginePort,
		SSHUser: base.SSHUser, SSHPort: base.SSHPort, SSHKeyPath: base.SSHKeyPath, Stored: m.doc["Driver"],
	}
	if note != nil {
		m.Instance.URL, m.Instance.SSHHost, m.Instance.InnerPort = note.URL, note.SSHHost, note.InnerPort
	}
	rest, err := m.doc.child("Driver")
	if err != nil {
		return err
	}
	for key := range baseKeys() {
		delete(rest, key)
	}
	if len(rest) == 0 {
		return nil
	}
	m.Instance.Raw, err = json.Marshal(rest)
	return err
}

// readWhole is readInstance for a Driver object that is the driver's alone.
func (m *Machine) readWhole(dir string, note hostNote) error {
	driver, err := m.doc.child("Driver")
	if err != nil {
		return err
	}
	if len(driver) == 0 { // null, or not there
		if err := m.doc.set("Driver", driver); err != nil {
			return err
		}
	}
	m.Instance = Instance{
		Name: m.Name, Dir: dir, IPAddress: note.IPAddress, EnginePort: note.EnginePort, InnerPort: note.InnerPort, URL: note.URL,
		SSHHost: note.SSHHost, SSHUser: note.SSHUser, SSHPort: note.SSHPort, SSHKeyPath: note.SSHKeyPath,
		Raw: m.doc["Driver"], Stored: m.doc["Driver"], Whole: true,
	}
	return nil
}

// hostNote is what encode notes beside the Driver object; nil for nothing.
func (m *Machine) hostNote() *hostNote {
	i := m.Instance
	switch {
	case i.Whole:
		return &hostNote{true, i.IPAddress, i.EnginePort, i.InnerPort, i.URL, i.SSHHost, i.SSHUser, i.SSHPort, i.SSHKeyPath}
	case i.URL != "" || i.SSHHost != "" || i.InnerPort != 0:
		return &hostNote{URL: i.URL, SSHHost: i.SSHHost, InnerPort: i.InnerPort}
	}
	return nil
}

// encode is the config.json of m: what was read, with the fields that berth knows as they are now.
func (m *Machine) encode(storeDir string) ([]byte, error) {
	doc := object{}
	for key, raw := range m.doc {
		doc[key] = raw
	}
	driver, err := m.driverObject(storeDir)
	if err != nil {
		return nil, err
	}
	host, err := m.hostObject()
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		doc.set("ConfigVersion", configVersion),
		doc.set("Driver", driver),
		doc.set("DriverName", m.DriverName),
		doc.set("HostOptions", host),
		doc.set("Name", m.Name),
	)
	if err != nil {
		return nil, err
	}
	delete(doc, "Berth")
	if note := (own{m.Unfinished, m.Problem, m.Plain, m.Services, m.Life.note(), m.hostNote()}); note != (own{}) {
		if err := doc.set("Berth", note); err != nil {
			return nil, err
		}
	}
	return indent(doc)
}

// indent writes JSON as docker-machine does, four spaces deep.
func indent(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "    ")
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// driverObject is the Driver object: the fields in Raw, and docker-machine's base fields over them unless Raw is the whole. Base
// fields that Instance does not hold stay as they were.
func (m *Machine) driverObject(storeDir string) (any, error) {
	if m.Instance.Whole {
		whole := object{}
		if err := json.Unmarshal(m.Instance.Raw, &whole); err != nil {
			return nil, fmt.Errorf("fields of driver %s: %w", m.DriverName, err)
		}
		return m.Instance.Raw, nil
	}
	before := driverBase{}
	if err := m.doc.read("Driver", &before); err != nil {
		return nil, err
	}
	driver := object{}
	if len(m.Instance.Raw) > 0 {
		if err := json.Unmarshal(m.Instance.Raw, &driver); err != nil {
			return nil, fmt.Errorf("fields of driver %s: %w", m.DriverName, err)
		}
	}
	if driver == nil {
		driver = object{}
	}
	i := m.Instance
	return driver, driver.merge(driverBase{
		IPAddress: i.IPAddress, MachineName: m.Name, SSHUser: i.SSHUser, SSHPort: i.SSHPort, SSHKeyPath: i.SSHKeyPath,
		StorePath: storeDir, EnginePort: i.EnginePort,
		SwarmMaster: before.SwarmMaster || m.Swarm.Master, SwarmHost: before.SwarmHost, SwarmDiscovery: before.SwarmDiscovery,
	})
}

func (m *Machine) hostObject() (object, error) {
	host, err := m.doc.child("HostOptions")
	if err != nil {
		return nil, err
	}
	for key, unused := range map[string]any{"Driver": "", "Memory": 0, "Disk": 0} {
		if _, there := host[key]; !there {
			if err := host.set(key, unused); err != nil {
				return nil, err
			}
		}
	}
	return host, errors.Join(
		host.overlay("EngineOptions", lists(m.Engine)),
		host.overlay("SwarmOptions", lists(m.Swarm)),
		host.overlay("AuthOptions", lists(m.Auth)),
	)
}

// lists writes an empty list as [], as docker-machine does, for readers that do not expect null there.
func lists[T any](options T) T {
	v := reflect.ValueOf(&options).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Slice && f.IsNil() {
			f.Set(reflect.MakeSlice(f.Type(), 0, 0))
		}
	}
	return options
}

// Inspect is the record as a JSON object, as `inspect` shows it.
func (s *Store) Inspect(m *Machine) (json.RawMessage, error) {
	return m.encode(s.dir)
}

// URL is where the machine's engine listens; "" while that is not known. A driver that has its own idea says so in a field URL,
// unless that is where its provider's API is: docker-machine's exoscale has one of that name.
func (m *Machine) URL() string {
	if m.Instance.URL != "" {
		return m.Instance.URL
	}
	var given struct{ URL string }
	if !m.Instance.Whole && len(m.Instance.Raw) > 0 && json.Unmarshal(m.Instance.Raw, &given) == nil &&
		given.URL != "" && !strings.HasPrefix(given.URL, "http") {
		return given.URL
	}
	if m.Instance.IPAddress == "" {
		return ""
	}
	port := m.Instance.EnginePort
	if port == 0 {
		port = defaultEnginePort
	}
	return "tcp://" + net.JoinHostPort(m.Instance.IPAddress, strconv.Itoa(port))
}

// UsesTLS tells whether the engine is reached over TLS: everything on TCP is.
func (m *Machine) UsesTLS() bool { return strings.HasPrefix(m.URL(), "tcp://") }

// Host is the host of the engine's URL without its port.
func (m *Machine) Host() string {
	u, err := url.Parse(m.URL())
	if err != nil {
		return ""
	}
	return u.Hostname()
}
