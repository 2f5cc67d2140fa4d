#!/bin/bash
# Process 1 of a virtual machine, after the initial RAM disk: mounts what a node has, runs /run/job, reports its exit
# code on the console, and powers off.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm /dev/pts
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
mkdir -p /run/netns
hostname vm
ip link set lo up
ulimit -l unlimited
# Emulation is some thirty times slower, and its timer is not: a task's slice holds as many instructions as a real
# machine's, so that kernels that preempt programs (Linux 7) do not do it thirty times as often.
mount -t debugfs debugfs /sys/kernel/debug
slice=/sys/kernel/debug/sched/base_slice_ns
[ ! -e $slice ] || echo 90000000 >$slice
# the console is for the job; what the kernel said is looked at in the end
dmesg -n 1

read -r programs </run/programs
mkdir -p "$programs"
mount -t ext4 -o ro /dev/vdb "$programs"
echo "KTRACE-VM-UP $(uname -r) $(cut -d' ' -f1 /proc/uptime)"
bash /run/job </dev/null
echo "KTRACE-VM-EXIT $? $(cut -d' ' -f1 /proc/uptime)"
dmesg | grep -E 'BUG:|WARNING:|Oops|rcu_.*stall|soft lockup' | sed 's/^/KTRACE-VM-KERNEL /'
sync
echo o >/proc/sysrq-trigger
sleep 10
