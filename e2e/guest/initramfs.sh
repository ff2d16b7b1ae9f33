#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The first program of the guest: finds its disks and goes on from there.
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
while read -r module; do
    $bb insmod "/modules/$module.ko" || echo "guest: no module $module"
done < /modules/order
$bb mount -t ext4 /dev/vda /root && $bb mount -t ext4 /dev/vdb /root/checks && $bb mount --move /dev /root/dev &&
    exec $bb switch_root /root /bin/sh /checks/init.sh
echo "guest: no disks"
$bb reboot -f
