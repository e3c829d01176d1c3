package machine

import (
	"os"
	"testing"
)

// Whatever is in a config.json: it is refused, or it can be written again and then reads as before.
func FuzzRecord(f *testing.F) {
	for _, file := range []string{"testdata/virtualbox.json", "testdata/v1.json"} {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"ConfigVersion":3,"DriverName":"x","Driver":{"IPAddress":"1","ipaddress":"2","EnginePort":-1},"Berth":{"Problem":"p"}}`))
	f.Add([]byte(`{"ConfigVersion":3,"DriverName":"x","Driver":{"URL":"tcp://1:2","Id":9007199254740993},"Berth":{"Host":{"Whole":true,"URL":"tcp://3:4"}}}`))
	f.Add([]byte(`{"ConfigVersion":3,"DriverName":"x","Driver":{"URL":1},"HostOptions":null}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		m, err := parse("web1", "/store/machines/web1", config)
		if err != nil {
			return
		}
		first, err := m.encode("/store")
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := parse("web1", "/store/machines/web1", first)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, first)
		}
		second, err := again.encode("/store")
		if err != nil {
			t.Fatal(err)
		}
		if string(first) != string(second) {
			t.Errorf("a rewrite changed the record from\n%s\nto\n%s", first, second)
		}
		if m.URL() != again.URL() {
			t.Errorf("the engine moved from %q to %q", m.URL(), again.URL())
		}
	})
}
