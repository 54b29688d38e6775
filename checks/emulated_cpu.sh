#!/usr/bin/env bash
# Runs the CPU device's tests on an emulated Sapphire Rapids: checks/emulated_cpu.sh [ISA…]
# The instruction sets are avx512 and amx if none are named. The machine is Bochs 3.0, built here, with Debian's cloud
# kernel; the tests are the first process. Wants Debian or Ubuntu, and minutes: what is built stays in
# target/emulated-cpu. A test fails where the machine lacks the instruction set that is named.
set -euo pipefail
cd "$(dirname "$0")/.."
isas=${*:-avx512 amx}
tests=(quantized boxes conformance kv_cache)
house=$PWD/target/emulated-cpu
mkdir -p "$house"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

packages=(busybox-static bochsbios cpio curl g++ grub-common grub-pc-bin make mtools vgabios xorriso xz-utils)
if ! dpkg-query -W "${packages[@]}" >/dev/null 2>&1; then
    as_root apt-get update -qq
    as_root apt-get install -y -qq "${packages[@]}" >/dev/null
fi

# Bochs has AMX, but not the MSR by which Linux gives tiles to those who asked: XFD, its error, and the fault
bochs() {
    local sum=78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b
    cd "$house"
    curl -sSfo bochs.tar.xz 'http://deb.debian.org/debian/pool/main/b/bochs/bochs_3.0+dfsg.orig.tar.xz'
    echo "$sum  bochs.tar.xz" | sha256sum --check --quiet
    tar xf bochs.tar.xz
    cd bochs-3.0
    sed -i 's/^  Bit64u ia32_xss;/&\n  Bit64u ia32_xfd, ia32_xfd_err;/' cpu/cpu.h
    sed -i 's/^  BX_CPU_THIS_PTR msr.ia32_xss = 0;/&\n  BX_CPU_THIS_PTR msr.ia32_xfd = 0;/' cpu/init.cc
    sed -i 's/^      leaf->eax |= (1<<3);/&\n    leaf->eax |= 1 << 4;/
        s/^      leaf->ecx = (cpu->ia32_xss_suppmask & .*/&\n      leaf->ecx |= (subfunction == 18) << 2;/' cpu/cpuid.cc
    sed -i '0,/^    case BX_MSR_XSS:/s//    case 0x1c4: val64 = BX_CPU_THIS_PTR msr.ia32_xfd; break;\n    case 0x1c5: val64 = BX_CPU_THIS_PTR msr.ia32_xfd_err; break;\n    case  BX_MSR_XSS:/
        s/^  msr_desc\[BX_MSR_XSS\] = .*/&\n  msr_desc[0x1c4] = new MSR_Descriptor("XFD", BX_ISA_AMX);\n  msr_desc[0x1c5] = new MSR_Descriptor("XFD_ERR", BX_ISA_AMX);/' cpu/msr.cc
    sed -i 's/^    case BX_MSR_XSS:/    case 0x1c4: BX_CPU_THIS_PTR msr.ia32_xfd = val_64; handleAvxModeChange(); break;\n    case 0x1c5: BX_CPU_THIS_PTR msr.ia32_xfd_err = val_64; break;\n&/' cpu/msr.cc
    sed -i '/^#if BX_SUPPORT_AMX/,/^#endif/{
        s/\((BX_XCR0_XTILECFG_MASK | BX_XCR0_XTILEDATA_MASK)) != 0\))/\1 || (BX_CPU_THIS_PTR msr.ia32_xfd >> 18) != 0)/
        s/^  BX_ASSERT(0);/  BX_CPU_THIS_PTR msr.ia32_xfd_err = 1 << 18;\n  exception(BX_NM_EXCEPTION, 0);/
    }' cpu/proc_ctrl.cc
    # what it saves of tiles for another thread is not what it restores, and signed bytes lose their sign
    sed -i 's/\(vmm16u(8+n) *= BX_CPU_THIS_PTR amx->tilecfg\[n\]\).rows/\1.bytes_per_row/
        s/\(vmmubyte(48+n) *= BX_CPU_THIS_PTR amx->tilecfg\[n\]\).bytes_per_row/\1.rows/
        s/row < *BX_TILE_REGISTERS/row < BX_TILE_MAX_ROWS/
        s/tile_use_tracker == 0/tile_use_tracker != 0/' cpu/xsave.cc
    sed -i '/^BX_CPP_INLINE Bit32u DPBDSS/,/^}/s/Bit8u/Bit8s/g' cpu/avx/amx.cc
    ./configure --enable-x86-64 --enable-cpu-level=6 --enable-avx --enable-evex --enable-amx --enable-memtype \
        --enable-repeat-speedups --enable-fast-function-calls --enable-handlers-chaining --disable-debugger \
        --disable-cdrom --disable-docbook --without-x --with-nogui CXXFLAGS=-O2 CFLAGS=-O2 >configure.log
    nice make -j"$(nproc)" >make.log 2>&1
}
[ -x "$house/bochs-3.0/bochs" ] || (bochs)

# the kernel: 5.16 or newer, so that it knows AMX
if [ ! -e "$house/vmlinuz" ]; then
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p')
    (cd "$house" && apt-get download -qq "$package" && dpkg-deb -x "$package"_*.deb kernel)
    cp "$house"/kernel/boot/vmlinuz-* "$house/vmlinuz"
fi

# the tests and what they are linked with, as the first file system
root=$house/root
rm -rf "$root" "$house/disk"
mkdir -p "$root"/{proc,sys,dev,tmp,tests} "$house/disk/boot/grub"
cp /bin/busybox "$root/busybox"
cargo test -p thermite-device --no-run "${tests[@]/#/--test=}" --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | while read -r binary; do
    name=$(basename "$binary")
    objcopy --strip-debug "$binary" "$root/tests/${name%-*}"
    ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
        install -D "$library" "$root/$library"
    done
done
cat >"$root/init" <<INIT
#!/busybox sh
/busybox mount -t proc proc /proc
/busybox mount -t devtmpfs dev /dev
for isa in $isas; do
    for test in ${tests[*]}; do
        echo "=== \$test on \$isa"
        THERMITE_CPU_ISA=\$isa /tests/\$test --test-threads=1 && echo "passed: \$test on \$isa"
    done
done
/busybox poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$house/disk/boot/initrd"
cp "$house/vmlinuz" "$house/disk/boot/"

# what is switched off here makes the kernel hang on this machine, or takes time
cat >"$house/disk/boot/grub/grub.cfg" <<GRUB
set timeout=0
menuentry tests {
    linux /boot/vmlinuz console=ttyS0,115200 loglevel=4 lsm= mitigations=off no5lvl nopku nopcid nofsgsbase \
        clearcpuid=serialize,rdpid,erms,fsrm,invpcid random.trust_cpu=on
    initrd /boot/initrd
}
GRUB
grub-mkrescue -d /usr/lib/grub/i386-pc -o "$house/boot.iso" "$house/disk" 2>"$house/grub.log"
cat >"$house/bochsrc" <<BOCHS
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
cpu: model=sapphire_rapids, count=1, ips=100000000
memory: guest=1024, host=1024
boot: cdrom
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$house/boot.iso, status=inserted
com1: enabled=1, mode=file, dev=$house/serial.txt
display_library: nogui
log: $house/bochs.log
clock: sync=none
BOCHS
rm -f "$house/serial.txt"
timeout 3600 nice "$house/bochs-3.0/bochs" -q -f "$house/bochsrc" >"$house/bochs.txt" 2>&1 </dev/null || true
tr -d '\r' <"$house/serial.txt" | grep -a -E '^(===|test |passed:|thread|assertion| *left| *right)|FAILED|panicked|lacks' || true
for isa in $isas; do
    for test in "${tests[@]}"; do
        grep -q -a "^passed: $test on $isa" "$house/serial.txt" || { echo "failed: $test on $isa"; exit 1; }
    done
done
