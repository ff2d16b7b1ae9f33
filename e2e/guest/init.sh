# SPDX-License-Identifier: Apache-2.0
# PID 1 of the guest: mounts what a host has, cgroups as version 2 alone, and runs the checks.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
bb=/checks/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
$bb mount -t tmpfs run /run
mkdir -p /dev/shm /dev/pts
$bb mount -t devpts devpts /dev/pts
$bb ifconfig lo up
cd /checks || exit
python3 /checks/check.py 2>&1
sync
$bb reboot -f
