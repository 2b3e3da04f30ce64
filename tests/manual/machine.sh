#!/bin/sh
# Starts a container for the manuals. It sees the files of this system, but changes none of them. It has its own
# namespaces, with systemd as process 1. All written files are in memory and are gone when systemd ends.
#
# Usage, as root: unshare --mount --propagation private machine.sh DIR PATH...
#
# DIR is an empty directory. The container also sees the PATHs, wherever they are mounted here.
set -eu
memory=$1
shift

# Mounts a layer in memory over DIR, at the same place in the container.
overlay() {
    name=$(echo "$1" | tr / _)
    mkdir -p "$memory/upper/$name" "$memory/scratch/$name" "$root$1"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$memory/upper/$name,workdir=$memory/scratch/$name" "$root$1"
}

mount_devices() {
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for name in null zero full random urandom tty; do
        touch "$root/dev/$name"
        mount --bind "/dev/$name" "$root/dev/$name"
    done
    mkdir "$root/dev/shm" "$root/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
}

# Makes the kernel's settings read-only, because they belong to all containers and to the host.
mount_kernel() {
    mount -t proc proc "$root/proc"
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
}

# Prepares the state after an installation of Debian and its packages: nothing of Comet, and only the packages'
# services.
make_fresh() {
    find "$root/etc/systemd/system" -mindepth 1 -delete
    find "$root/etc/nginx/conf.d" "$root/etc/nginx/sites-enabled" -mindepth 1 -delete
    ln -s ../sites-available/default "$root/etc/nginx/sites-enabled/default"
    rm -rf "$root"/etc/comet* "$root"/var/lib/comet "$root"/var/spool/comet "$root"/srv/comet
    rm -rf "$root"/usr/local/bin/comet "$root"/usr/local/lib/libcomet* "$root"/usr/local/share/comet
    for file in passwd group shadow gshadow; do
        sed -i '/^comet:/d' "$root/etc/$file"
    done
}

# Runs as process 1 of its namespace.
boot() {
    root=$memory/root
    mkdir "$root"
    overlay /
    mount_kernel
    mount_devices
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    for path; do overlay "$path"; done
    make_fresh
    cd "$root"
    mkdir run/old
    pivot_root . run/old
    umount -l run/old
    exec env -i container=comet-manual PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=null
}

if [ $$ = 1 ]; then boot "$@"; fi

mount -t tmpfs tmpfs "$memory"
mkdir "$memory/cgroup"
mount -t cgroup2 cgroup2 "$memory/cgroup"
cgroup=$memory/cgroup/comet-manual-$$
mkdir "$cgroup"
# The namespaces end with systemd, and systemd ends with this script or with the test.
sh -c 'echo 0 >"$0/cgroup.procs"; exec setpriv --pdeathsig KILL \
    unshare --cgroup --pid --net --uts --ipc --mount --propagation private --fork --kill-child "$@"' \
    "$cgroup" "$0" "$memory" "$@" || true
find "$cgroup" -depth -type d -exec rmdir {} +
