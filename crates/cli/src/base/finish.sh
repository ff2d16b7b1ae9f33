# Run by mmdebstrap with the new root as $1, after all packages are installed: what this machine left there goes.
set -eu
root=$1

# Settings of the build: proxies, mirrors, how to be quick.
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/apt/sources.list" "$root/etc/resolv.conf" "$root/etc/hostname"
find "$root/etc/apt/sources.list.d" "$root/etc/apt/auth.conf.d" -mindepth 1 -delete
# What was left out of packages is left out of those that are installed later, too.
sed '/^force-unsafe-io$/d' "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" > "$root/etc/dpkg/dpkg.cfg.d/microsandbox"
rm "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"

# Logs, and copies of what was before.
find "$root/var/log" -type f -delete
rm -f "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/etc/passwd- "$root"/etc/group- \
    "$root"/etc/shadow- "$root"/etc/gshadow- "$root"/etc/subuid- "$root"/etc/subgid-
find "$root/tmp" "$root/var/tmp" "$root/root/.cache" -mindepth 1 -delete 2>/dev/null || true

# Compiled Python is taken for what its source says, without a look at the source or at any time (PEP 552). What was
# compiled with SOURCE_DATE_EPOCH carries a hash of the source, and the flags 3: compare it. They become 1: do not.
if [ -x "$root/usr/bin/python3" ]; then
    chroot "$root" /usr/bin/python3 -B -I - <<'PYTHON'
import pathlib
import sys

for path in sorted(pathlib.Path("/usr").rglob("*.pyc")):
    content = bytearray(path.read_bytes())
    flags = int.from_bytes(content[4:8], "little")
    if flags == 0:
        sys.exit(f"{path} was compiled with a time in it")
    content[4:8] = (1).to_bytes(4, "little")
    path.write_bytes(content)
PYTHON
fi
