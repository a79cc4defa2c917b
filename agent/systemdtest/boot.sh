# Becomes the systemd of a machine: pid 1 of namespaces that it is already in, but
# for the cgroup namespace, which begins at the cgroup it is in. $1 is the folder
# shared with the test. Whatever cannot be done here ends with 77.
set -e
trap 'exit 77' EXIT
mount -n --make-rprivate /
shared=$1
mkdir $shared/mnt $shared/dev
mount -n -t tmpfs -o mode=755 run $shared/mnt
mkdir -p $shared/mnt/host $shared/mnt/log
mount -n --bind $shared $shared/mnt/host
cp /etc/hosts $shared/mnt/hosts
mount -n --move $shared/mnt /run
mount -n --bind /run/hosts /etc/hosts
mount -n -t tmpfs -o mode=755 etc /etc/systemd/system
cp -r /run/host/units/. /etc/systemd/system
mount -n -t tmpfs -o mode=755 var /var
mkdir -m 1777 /var/tmp
mkdir /var/lib
mount -n -t tmpfs -o mode=755 dev /run/host/dev
for device in null zero full random urandom tty; do
	: >/run/host/dev/$device
	mount -n --bind /dev/$device /run/host/dev/$device
done
: >/run/host/dev/console
mount -n --bind /run/host/console /run/host/dev/console
mkdir /run/host/dev/shm
mount -n --move /run/host/dev /dev
mount -n -t tmpfs -o mode=1777 tmp /tmp
mount -n -t proc proc /proc
mount -n --bind -o ro /proc/sys /proc/sys
umount -n -l /sys 2>/dev/null || :
mount -n -t sysfs -o ro sysfs /sys
mount -n -t cgroup2 cgroup2 /sys/fs/cgroup
mount -n -o remount,bind,ro /
ip link set lo up
trap - EXIT
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=innate-test NOTIFY_SOCKET=/run/host/notify \
	SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system SYSTEMD_LOG_TARGET=console \
	/lib/systemd/systemd --system
