package machine

import (
	"errors"
	"fmt"
	"path/filepath"
)

// adopt makes a record of an older version look like today's, in memory alone: a read never writes.
func adopt(doc object, version int, dir string) error {
	switch {
	case version > configVersion:
		return fmt.Errorf("config version %d is from the future: a newer program wrote it, this berth knows up to %d", version, configVersion)
	case version < 1:
		return errors.New("it has no ConfigVersion, or that of a docker-machine before 0.2: open it once with docker-machine 0.16, which rewrites it")
	case version == configVersion:
		return nil
	}
	host, err := doc.child("HostOptions")
	if err != nil {
		return err
	}
	auth, err := host.child("AuthOptions")
	if err != nil {
		return err
	}
	if key, old := auth["PrivateKeyPath"]; old {
		auth["CaPrivateKeyPath"] = key
		delete(auth, "PrivateKeyPath")
	}
	// Version 2 wrote the store's folder here where later ones write the machine's.
	root := filepath.Dir(filepath.Dir(dir))
	return errors.Join(
		auth.set("CertDir", filepath.Join(root, "certs")),
		auth.set("StorePath", dir),
		host.set("AuthOptions", auth),
		doc.set("HostOptions", host),
	)
}
