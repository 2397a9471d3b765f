//! Files of the host and of the system: reading, writing, and set-user-id files left for the host.

use super::case::{Bare, Case, all_must_fail, case};

pub(super) const CASES: &[Case] = &[
    case("A01", "host file by absolute path", "cat $C/secret.txt", Bare::Succeeds),
    case(
        "A02",
        "climb with .. through /proc/self/root",
        "cat /proc/self/root/../../../../$C/secret.txt",
        Bare::Succeeds,
    ),
    case(
        "A03",
        "credential files of the host user",
        "cat /root/.ssh/* /root/.aws/* /root/.netrc /root/.git-credentials /root/.config/gh/hosts.yml \
         /root/.cargo/config.toml /root/.bashrc /home/*/.bashrc 2>/dev/null | grep -q .",
        Bare::NotRun,
    ),
    case(
        "A04",
        "shadow and full passwd",
        "grep -q : /etc/shadow || [ $(wc -l </etc/passwd) -gt 5 ]",
        Bare::Succeeds,
    ),
    case(
        "A07",
        "open_by_handle_at (shocker)",
        r#"python3 -c '$PYTHON
h=b(bytes([8,0,0,0,1,0,0,0,2,0,0,0,0,0,0,0]));r=s(304,os.open("/usr",0),h,0);sys.exit(0 if r>=0 or e()==116 else 1)'"#,
        Bare::NotRun,
    ),
    case(
        "A08",
        "write to system directories",
        "touch /usr/bin/x || touch /etc/x || touch /usr/lib/x",
        Bare::NotRun,
    ),
    case(
        "A09",
        "remount read-write",
        "mount -o remount,rw /usr || unshare -Urm mount -o remount,rw,bind /usr",
        Bare::NotRun,
    ),
    case(
        "A10",
        "open sysrq-trigger for writing",
        r#"python3 -c 'open("/proc/sysrq-trigger","w")'"#,
        Bare::NotRun,
    ),
    case(
        "A11",
        "replace the workspace root or its mount point",
        "mv /work /work2 || rmdir /work",
        Bare::NotRun,
    ),
    case(
        "B01",
        "a set-user-id file by chmod",
        "d=$(mktemp -d) && cp /bin/true $d/x && chmod 4755 $d/x && test -u $d/x",
        Bare::Succeeds,
    ),
    case(
        "B02",
        "a set-user-id file by open, creat and mknod",
        r#"cd $(mktemp -d) && python3 -c '$PYTHON
import stat
ways=[lambda:os.open("a",os.O_CREAT|os.O_WRONLY,0o4755),lambda:os.open("t",os.O_CREAT|os.O_RDWR|os.O_EXCL,0o2755),
 lambda:os.mknod("c",stat.S_IFREG|0o6755),lambda:s(85,b"d",0o4755)]
for w in ways:
  try: w()
  except OSError: pass
sys.exit(0 if any(os.stat(f).st_mode&0o6000 for f in os.listdir(".")) else 1)'"#,
        Bare::Succeeds,
    ),
    case(
        "B03",
        "a set-user-id file by fchmod and fchmodat2",
        r#"cd $(mktemp -d) && touch x && python3 -c '$PYTHON
f=os.open("x",0);r=s(91,f,0o4755);q=s(452,-100,b"x",0o4755,0);sys.exit(0 if os.stat("x").st_mode&0o6000 else 1)'"#,
        Bare::Succeeds,
    ),
    case("B04", "shared memory file of the host", "cat $SHMFILE", Bare::Succeeds),
    case("B05", "a file of one's own in /dev", "cp /bin/true /dev/x && /dev/x", Bare::NotRun),
    case(
        "B06",
        "host paths in the mount table and the first process",
        r#"cat /proc/self/mountinfo /proc/self/mounts /proc/1/mountinfo /proc/1/cmdline 2>/dev/null | grep -aqF "$HOSTPATH""#,
        Bare::NotRun,
    ),
    case(
        "B07",
        "files of /proc that tell of the kernel",
        "head -c 9 /proc/kallsyms | grep -aq . || head -c 9 /proc/kcore | grep -aq . || grep -q . /proc/keys || \
         head -c 9 /proc/config.gz | grep -aq . || grep -q . /proc/timer_list",
        Bare::Succeeds,
    ),
    case(
        "B08",
        "settings of the host's kernel",
        "echo x >/proc/sys/kernel/core_pattern || echo 3 >/proc/sys/vm/drop_caches || echo x >/proc/sys/kernel/hostname || \
         echo x >/proc/sys/fs/binfmt_misc/register || echo 0 >/proc/sys/user/max_user_namespaces",
        Bare::NotRun,
    ),
    case(
        "B09",
        "device nodes and mounts of one's own",
        "mknod /tmp/d b 254 0 || mknod /tmp/n c 1 3 || mount -t tmpfs none /tmp || mount -t proc proc /tmp || \
         mount --bind /tmp /home/agent || umount /tmp || umount -l /proc/keys",
        Bare::NotRun,
    ),
    case(
        "B10",
        "the nested mount interface",
        r#"python3 -c '$PYTHON
r=[s(428,-100,b"/usr",0),s(428,-100,b"/usr",1),s(430,b"tmpfs",0),s(433,-100,b"/",0)];sys.exit(0 if max(r)>=0 else 1)'"#,
        Bare::Succeeds,
    ),
    case(
        "B11",
        "write through a hard link or a rename to a read-only place",
        "touch /tmp/l && (ln /usr/bin/env /tmp/e || ln /tmp/l /usr/l || mv /tmp/l /usr/bin/l)",
        Bare::NotRun,
    ),
    case(
        "B12",
        "kernel interfaces of /sys and cgroups",
        "ls /sys/kernel || ls /sys/fs/cgroup || find / -xdev -name release_agent 2>/dev/null | grep -q .",
        Bare::Succeeds,
    ),
];

#[test]
fn every_attack_on_files_fails() {
    all_must_fail(CASES);
}
