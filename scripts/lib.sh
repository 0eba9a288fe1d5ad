# Shared by ./demo, ./check and the benches: installing packages, making base images.
# Base images are made from Debian packages: no image registry is needed.

say() { printf '\n== %s\n' "$*" >&2; }

# Installs the Debian packages named, if any of them is missing.
need_packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "installing: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
        >/dev/null
}

# Prints the address of the Debian archive that this machine uses.
debian_mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security |
        head -n 1
}

# make_debian_root DIR: a minimal Debian 12 that trusts and asks what this machine does.
make_debian_root() {
    local dir=$1
    debootstrap --variant=minbase --include=ca-certificates bookworm "$dir" "$(debian_mirror)" \
        >"$dir.log" 2>&1 || { tail -n 20 "$dir.log" >&2; return 1; }
    rm -rf "$dir"/etc/apt/sources.list "$dir"/var/cache/apt/* "$dir"/var/lib/apt/lists/*
    cp -a /etc/apt/sources.list* "$dir/etc/apt/"
    find /etc/apt/apt.conf.d -type f -exec grep -lE 'Proxy|Retries|Check-Valid' {} + 2>/dev/null |
        xargs -r cp -t "$dir/etc/apt/apt.conf.d"
    find "$dir/etc/apt/sources.list.d" -type f ! -name '*.sources' ! -name '*.list' -delete
    cp -L /etc/ssl/certs/ca-certificates.crt "$dir/etc/ssl/certs/ca-certificates.crt"
    if [ -f /etc/pip.conf ]; then cp /etc/pip.conf "$dir/etc/pip.conf"; fi
    rm -f "$dir"/dev/* 2>/dev/null || true
}

# make_busybox_root DIR: a root file system with busybox and nothing else.
make_busybox_root() {
    local dir=$1
    mkdir -p "$dir"/{bin,dev,etc,proc,root,sys,tmp,usr/bin,usr/sbin,sbin,var}
    chmod 1777 "$dir/tmp"
    cp /bin/busybox "$dir/bin/busybox"
    for applet in $("$dir/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$dir/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' \
        >"$dir/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$dir/etc/group"
}

# base_image COOPER NAME ROOT [CMD]: makes the image NAME of a root file system.
base_image() {
    local cooper=$1 name=$2 dir=$3 cmd=${4:-/bin/sh} context
    context=$(mktemp -d)
    tar -C "$dir" --numeric-owner -cf "$context/root.tar" .
    printf 'FROM scratch\nADD root.tar /\nCMD ["%s"]\n' "$cmd" >"$context/Dockerfile"
    "$cooper" build -q -t "$name" "$context" >/dev/null
    rm -rf "$context"
}
