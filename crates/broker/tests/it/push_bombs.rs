//! Packs that are small and mean much: each is refused by name, in bounded time and memory.

use crate::pushing::{commit_tree, graft, hash_object, mktree, push_request};
use crate::support::{World, command, raw_within};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// How long a refusal may take on a busy machine; each takes well under a second on an idle one.
const BOUND: Duration = Duration::from_secs(120);

/// A pack of the objects that `rev-list --objects` listed.
pub(crate) fn pack_of(repository: &Path, listed: &str) -> Vec<u8> {
    let ids: String =
        listed.lines().filter_map(|line| line.split(' ').next()).map(|id| format!("{id}\n")).collect();
    let list = repository.join("list.tmp");
    std::fs::write(&list, ids).unwrap();
    let output = command("git")
        .current_dir(repository)
        .args(["pack-objects", "--stdout", "-q"])
        .stdin(std::fs::File::open(&list).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A pack written by hand.
struct Pack {
    bytes: Vec<u8>,
    count: u32,
    last: usize,
}

impl Pack {
    fn new() -> Self {
        Self { bytes: b"PACK\0\0\0\x02\0\0\0\0".to_vec(), count: 0, last: 0 }
    }

    fn head(&mut self, kind: u8, mut size: usize) {
        self.count += 1;
        let mut byte = kind << 4 | u8::try_from(size & 15).unwrap();
        size >>= 4;
        while size > 0 {
            self.bytes.push(byte | 0x80);
            byte = u8::try_from(size & 0x7f).unwrap();
            size >>= 7;
        }
        self.bytes.push(byte);
    }

    fn data(&mut self, content: &[u8]) {
        let mut encoder = ZlibEncoder::new(&mut self.bytes, Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap();
    }

    fn blob(&mut self, content: &[u8]) {
        self.last = self.bytes.len();
        self.head(3, content.len());
        self.data(content);
    }

    /// A delta on the entry before.
    fn delta(&mut self, delta: &[u8]) {
        let begin = self.bytes.len();
        let mut back = begin - self.last;
        self.head(6, delta.len());
        let mut digits = vec![u8::try_from(back & 0x7f).unwrap()];
        while back > 0x7f {
            back = (back >> 7) - 1;
            digits.push(u8::try_from(back & 0x7f).unwrap() | 0x80);
        }
        digits.reverse();
        self.bytes.extend_from_slice(&digits);
        self.data(delta);
        self.last = begin;
    }

    /// The pack with its sum.
    fn finish(mut self) -> Vec<u8> {
        self.bytes[8..12].copy_from_slice(&self.count.to_be_bytes());
        let mut child = command("sha1sum")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&self.bytes).unwrap();
        let sum = child.wait_with_output().unwrap().stdout;
        for pair in sum[..40].chunks(2) {
            self.bytes.push(u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
        }
        self.bytes
    }
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap());
}

/// Sends a pack and gives the answer, which comes in time and leaves nothing.
async fn bomb(world: &World, clone: &Path, pack: &[u8]) -> String {
    let begun = Instant::now();
    let (address, request) = (world.address, push_request(world, "HEAD", clone, pack).await);
    let answer = tokio::task::spawn_blocking(move || raw_within(address, &request, BOUND)).await.unwrap();
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert!(answer.contains("unpack ok") && answer.contains("ng refs/heads/"), "{answer}");
    assert_eq!((world.tip().await, world.held()), (None, 0));
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_that_unfold_without_end_are_counted_and_refused() {
    let mut world = World::new().await;
    let own = world.own();
    let clone = world.clone_to("clone").await;
    // The git bomb: ten folders of ten folders … of one file, or of nothing at all.
    for leaf in ["blob", "tree"] {
        let mut id = hash_object(&clone, leaf, b"");
        for level in 0..12 {
            let mode: &[u8] = if level == 0 && leaf == "blob" { b"100644" } else { b"40000" };
            let names: Vec<String> = (0..10).map(|number| format!("d{number}")).collect();
            let entries: Vec<(&[u8], &[u8], &str)> =
                names.iter().map(|name| (mode, name.as_bytes(), id.as_str())).collect();
            id = mktree(&clone, &entries);
        }
        commit_tree(&clone, &graft(&clone, &id), "bomb").await;
        let begun = Instant::now();
        let said = world.push(&clone, &[], &[&format!("bomb:{}", own.short())]).await;
        said.refused_with("push-too-many-files");
        assert!(said.text.contains("unfold"), "{}", said.text);
        assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    }
    assert_eq!((world.tip().await, world.held()), (None, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_of_thousands_of_parts_is_refused() {
    let mut world = World::new().await;
    let own = world.own();
    let clone = world.clone_to("clone").await;
    let mut content = Vec::new();
    let depth = 1500;
    // Written by one process, from the leaf up.
    let blob = hash_object(&clone, "blob", b"x");
    let mut script = format!("id={blob}; mode=100644; kind=blob\n");
    script.push_str(&format!(
        "for i in $(seq {depth}); do id=$(printf '%s %s %s\\tp\\n' $mode $kind $id | git mktree); mode=040000; kind=tree; done; echo $id"
    ));
    let output = command("sh").current_dir(&clone).args(["-c", &script]).output().unwrap();
    content.extend_from_slice(&output.stdout);
    let tree = String::from_utf8(content).unwrap();
    commit_tree(&clone, &graft(&clone, tree.trim()), "deep").await;
    let said = world.push(&clone, &[], &[&format!("deep:{}", own.short())]).await;
    said.refused_with("path-dangerous");
    assert!(said.text.contains("deep"), "{}", said.text);
    // Few parts, each long.
    let name = "n".repeat(250);
    let mut id = mktree(&clone, &[(b"100644", name.as_bytes(), &blob)]);
    for _ in 0..20 {
        id = mktree(&clone, &[(b"40000", name.as_bytes(), &id)]);
    }
    commit_tree(&clone, &graft(&clone, &id), "long").await;
    let said = world.push(&clone, &[], &[&format!("long:{}", own.short())]).await;
    said.refused_with("path-dangerous");
    assert!(said.text.contains("4095"), "{}", said.text);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_of_deltas_and_deltas_that_swell_are_refused() {
    let mut world = World::new().await;
    let clone = world.clone_to("clone").await;
    world.commit(&clone, "a.txt", "a\n").await;
    let mut chain = Pack::new();
    chain.blob(b"00000");
    for number in 1..=5000 {
        let text = format!("{number:05}");
        let mut delta = vec![5, 5, 5];
        delta.extend_from_slice(text.as_bytes());
        chain.delta(&delta);
    }
    let answer = bomb(&world, &clone, &chain.finish()).await;
    assert!(answer.contains("push-object-check") && answer.contains("chained"), "{answer}");
    // Some kilobytes that copy one block until three gigabytes are full.
    let block = 0xffff_u64;
    let copies = 3 * 1024 * 1024 * 1024 / block;
    let mut swelling = Pack::new();
    swelling.blob(&vec![b'0'; usize::try_from(block).unwrap()]);
    let mut delta = Vec::new();
    varint(block, &mut delta);
    varint(block * copies, &mut delta);
    for _ in 0..copies {
        delta.extend_from_slice(&[0x80 | 0x10 | 0x20, 0xff, 0xff]);
    }
    swelling.delta(&delta);
    let pack = swelling.finish();
    assert!(pack.len() < 64 * 1024, "{}", pack.len());
    let answer = bomb(&world, &clone, &pack).await;
    assert!(answer.contains("push-too-large"), "{answer}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_objects_and_packs_that_lie_are_refused() {
    let mut world = World::new().await;
    let clone = world.clone_to("clone").await;
    world.commit(&clone, "a.txt", "a\n").await;
    let tiny = |count: u32| {
        let mut pack = Pack::new();
        for number in 0..count {
            pack.blob(&number.to_be_bytes());
        }
        pack.finish()
    };
    let answer = bomb(&world, &clone, &tiny(100_001)).await;
    assert!(answer.contains("push-too-many-objects"), "{answer}");
    // Within the bound, and without the commit that the push names.
    let many = tiny(5_000);
    let answer = bomb(&world, &clone, &many).await;
    assert!(answer.contains("push-object-check"), "{answer}");
    // Says fewer, more, or as many as there are numbers for.
    for count in [5_u32, 5_001, u32::MAX] {
        let mut lies = many.clone();
        lies[8..12].copy_from_slice(&count.to_be_bytes());
        let answer = bomb(&world, &clone, &lies).await;
        assert!(answer.contains("push-object-check") || answer.contains("push-too-many-objects"), "{answer}");
    }
    world.stop().await;
}
