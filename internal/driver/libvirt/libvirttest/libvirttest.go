// Package libvirttest starts a real libvirtd for tests.
package libvirttest

// Script is for sh, as root, in a mount namespace of its own with an empty /run: it becomes the libvirtd of the path $2, with empty folders in
// the place of the system's. $1 is a folder for its socket, libvirt-sock, and for its pool of images.
const Script = `set -eu
for dir in /var/lib/libvirt /etc/libvirt /var/cache/libvirt /var/log/libvirt; do
	if [ -d $dir ]; then mount -t tmpfs tmpfs $dir; fi
done
mkdir -p /run/libvirt /etc/libvirt /var/lib/libvirt/images "$1/images"
mount --bind "$1/images" /var/lib/libvirt/images
# Its user comes with another package than the daemon.
for file in passwd group; do
	grep -q ^libvirt-qemu: /etc/$file && continue
	cp /etc/$file /run/$file
	case $file in
	passwd) echo libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin >>/run/$file ;;
	group) echo libvirt-qemu:x:64055: >>/run/$file ;;
	esac
	mount --bind /run/$file /etc/$file
done
cat >/etc/libvirt/qemu.conf <<'CONF'
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
remember_owner = 0
CONF
cat >/etc/libvirt/libvirtd.conf <<CONF
unix_sock_dir = "$1"
auth_unix_rw = "none"
CONF
exec "$2" -f /etc/libvirt/libvirtd.conf
`
