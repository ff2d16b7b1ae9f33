# Run by mmdebstrap with the new root as $1, after all packages are installed: what this machine left there goes.
set -eu
root=$1

# Settings of the build: proxies, mirrors, how to be quick.
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/apt/sources.list" "$root/etc/resolv.conf" "$root/etc/hostname"
find "$root/etc/apt/sources.list.d" "$root/etc/apt/auth.conf.d" -mindepth 1 -delete
# What was left out of packages is left out of those that are installed later, too.
sed '/^force-unsafe-io$/d' "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" > "$root/etc/dpkg/dpkg.cfg.d/microsandbox"
rm "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"

# What apt fetched. mmdebstrap would ask apt to do it, and then it depends on this machine to whom the two directories
# belong that are left.
find "$root/var/lib/apt/lists" "$root/var/cache/apt" -mindepth 1 -delete
install -d -m 755 -o 0 -g 0 "$root/var/cache/apt/archives"
install -d -m 700 -o 0 -g 0 "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"

# Logs, and copies of what was before.
find "$root/var/log" -type f -delete
rm -f "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/etc/passwd- "$root"/etc/group- \
    "$root"/etc/shadow- "$root"/etc/gshadow- "$root"/etc/subuid- "$root"/etc/subgid-
# mmdebstrap empties $root/tmp later: it has apt's configuration there.
find "$root/var/tmp" -mindepth 1 -delete
rm -rf "$root/root/.cache"

# Compiled Python is taken for what its source says, without a look at the source or at any time (PEP 552). What was
# compiled with SOURCE_DATE_EPOCH carries a hash of the source, and the flags 3: compare it. They become 1: do not. The
# flags 0 mean a time instead of the hash, in what an import compiled on the way: it is compiled once more.
if [ -x "$root/usr/bin/python3" ]; then
    chroot "$root" /usr/bin/python3 -B -I - <<'PYTHON'
import importlib.util
import pathlib
import py_compile

for path in sorted(pathlib.Path("/usr").rglob("*.pyc")):
    content = bytearray(path.read_bytes())
    if content[4:8] == bytes(4):
        source = importlib.util.source_from_cache(str(path))
        unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(source, str(path), doraise=True, invalidation_mode=unchecked)
    else:
        content[4:8] = (1).to_bytes(4, "little")
        path.write_bytes(content)
PYTHON
fi
