package machine

import (
	"encoding/json"
	"fmt"
	"path/filepath"
)

// DecodeDriver reads the Driver object of config.json, for who speaks with docker-machine of it. The name and the store's folder in
// it make the Instance's.
func DecodeDriver(driver json.RawMessage) (Instance, error) {
	var is struct{ MachineName, StorePath string }
	if err := json.Unmarshal(driver, &is); err != nil {
		return Instance{}, fmt.Errorf("Driver object: %w", err) //nolint:staticcheck,revive // it is called so
	}
	m := &Machine{Name: is.MachineName, doc: object{"Driver": driver}}
	dir := ""
	if inStore(is.MachineName) && filepath.IsAbs(is.StorePath) {
		dir = (&Store{dir: filepath.Clean(is.StorePath)}).MachineDir(is.MachineName)
	}
	if err := m.readInstance(dir, nil); err != nil {
		return Instance{}, err
	}
	return m.Instance, nil
}

// EncodeDriver is the Driver object for what DecodeDriver read, as it is now.
func EncodeDriver(i Instance) (json.RawMessage, error) {
	store := ""
	if i.Dir != "" {
		store = filepath.Dir(filepath.Dir(i.Dir))
	}
	m := &Machine{Name: i.Name, Instance: i, doc: object{}}
	if len(i.Stored) > 0 {
		m.doc["Driver"] = i.Stored
	}
	driver, err := m.driverObject(store)
	if err != nil {
		return nil, err
	}
	return json.Marshal(driver)
}
