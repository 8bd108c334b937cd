//! What hostile files cost in memory: at most 64 MiB and twice their length, whatever they claim.
//! One test alone, because the allocator counts for the whole process.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use tempfile::TempDir;
use treepie::Options;
use treepie_testkit::{
    hostile::{
        Target,
        allocations::{Counted, peak_of},
        page::{BRANCH_KIND, Entry, LEAF_KIND, lay_out, seal},
        seeds,
        stamp::{
            FRAME_SIZE, PAGE_SIZE, RECORD_HEADER_SIZE, put, stamp_frame_and_record, stamp_header,
            u64_at,
        },
        template::{self, DIR, Template},
    },
    tally,
};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const MIB: usize = 1 << 20;

/// A copy of a template on a real disk.
struct Files {
    dir: TempDir,
    template: &'static Template,
}

impl Files {
    fn new(template: &'static Template) -> Files {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for file in &template.files {
            let path = file.path.strip_prefix(DIR).expect("all are in one folder");
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, &file.bytes).expect("a file");
        }
        Files { dir, template }
    }

    fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) {
        fs::write(self.dir.path().join(name), bytes).expect("a file");
    }

    fn len(&self) -> usize {
        let folders = [self.dir.path().to_owned(), self.dir.path().join("journal")];
        let files = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder"));
        // What is sparse costs nothing, and may cost the reader nothing.
        let stored = |file: fs::Metadata| file.len().min(file.blocks() * 512) as usize;
        files.map(|file| stored(file.and_then(|file| file.metadata()).expect("a file"))).sum()
    }

    fn options(&self) -> Options {
        Options::new()
            .versions_memory(template::VERSIONS_MEMORY)
            .scratch_memory(template::SCRATCH_MEMORY)
            .background_threads(false)
            .checkpoint_on_close(false)
    }
}

/// Opens, checks, reports, reads and salvages; none of it need succeed.
fn look(files: &Files) -> bool {
    let opened = look_inside(files);
    let saved = files.dir.path().join("saved");
    let _ = files.options().salvage(files.dir.path(), saved, |_| ControlFlow::Continue(()));
    opened
}

fn look_inside(files: &Files) -> bool {
    let Ok(db) = files.options().open(files.dir.path()) else { return false };
    let _ = db.check();
    let _ = db.report();
    let _ = db.journal_records(treepie::ids::Lsn(0)).map(|records| records.take(1000).count());
    let snapshot = db.read().expect("a snapshot");
    for info in snapshot.trees().unwrap_or_default() {
        let Ok(tree) = snapshot.tree(&info.name) else { continue };
        let _ = tree.iter().take(10_000).filter(Result::is_ok).count();
    }
    true
}

/// An LZ4 block of about 255 times its length.
fn bomb(len: usize) -> (Vec<u8>, u64) {
    // One literal, a match of it that goes on for as long as there are bytes of 255, five literals.
    let mut block = vec![0x1f, 0, 1, 0];
    block.resize(len, 255);
    let raw = 1 + 19 + 255 * (len - 4) as u64 + 5;
    block.extend([0, 0x50, 0, 0, 0, 0, 0]);
    (block, raw)
}

/// A record behind the end of the journal.
fn append(files: &Files, (is_lz4, change_count, raw_len): (bool, u32, u64), payload: &[u8]) {
    let template = files.template;
    let segment = template.files.iter().find(|file| file.path == template.end.0);
    let mut bytes = segment.expect("the newest segment").bytes.clone();
    let mut piece = vec![0; FRAME_SIZE + RECORD_HEADER_SIZE];
    piece.extend(payload);
    let (frame, record) = piece.split_at_mut(FRAME_SIZE);
    let lsn = template.last.0 + 1;
    put(frame, 0, b"TPFR");
    put(frame, 8, &bytes[48..56]);
    put(frame, 16, &(record.len() as u32).to_le_bytes());
    put(frame, 20, &1_u32.to_le_bytes());
    put(frame, 24, &lsn.to_le_bytes());
    put(record, 0, b"TPRC");
    put(record, 8, &[1, 0, 1, u8::from(is_lz4), 0, 16, 0, 0]);
    put(record, 16, &lsn.to_le_bytes());
    put(record, 40, &(payload.len() as u64).to_le_bytes());
    put(record, 48, &raw_len.to_le_bytes());
    put(record, 80, &change_count.to_le_bytes());
    stamp_frame_and_record(frame, record, template.last.1);
    bytes.truncate(template.end.1);
    bytes.extend(&piece);
    bytes.resize(bytes.len().next_multiple_of(PAGE_SIZE), 0);
    let name = template.end.0.strip_prefix(DIR).expect("all are in one folder");
    files.write(name, &bytes);
}

/// Number, root page, and place of its state, of a tree of the template.
fn tree(name: &str) -> (u32, usize) {
    let disk = template::all()[0].disk.settled(3);
    let db = template::options(&disk).open(DIR).expect("it is whole");
    let trees = db.read().and_then(|snapshot| snapshot.trees()).expect("it is whole");
    let info = trees.iter().find(|info| info.name == name.as_bytes()).expect("it is there");
    let root = info.root.0 as usize;
    let data = template::all()[0].data();
    (u64_at(data, root * PAGE_SIZE + 20) as u32, root)
}

/// The root of a tree becomes a branch over `leaves` pages behind the end, each used as often as it
/// fits, all of entries whose values are runs of a GiB somewhere.
fn runs_everywhere(leaves: usize) -> Files {
    let files = Files::new(&template::all()[0]);
    let mut data = files.template.data().to_vec();
    let (tree, root) = tree("numbers");
    let first = data.len() / PAGE_SIZE;
    data.resize((first + leaves) * PAGE_SIZE, 0);
    let node = |data: &mut Vec<u8>, number: usize, kind: u8, entries: &[Entry]| {
        let page = &mut data[number * PAGE_SIZE..][..PAGE_SIZE];
        page.fill(0);
        put(page, 16, &[kind, kind - 1]);
        put(page, 20, &tree.to_le_bytes());
        lay_out(page, kind, b"", entries);
        seal(data, number);
    };
    for leaf in 0..leaves {
        let entries: Vec<Entry> = (0..110_u32)
            .map(|at| {
                let run = u64::from(19 + at * 131_073 + leaf as u32 * 17);
                let place = [run.to_le_bytes(), (1_u64 << 30).to_le_bytes()].concat();
                let key = (leaf as u32 * 110 + at).to_be_bytes();
                Entry { suffix: key.to_vec(), rest: place, is_run: true, ..Entry::default() }
            })
            .collect();
        node(&mut data, first + leaf, LEAF_KIND, &entries);
    }
    let children: Vec<Entry> = (0..200.min(leaves) as u32)
        .map(|at| {
            let separator = if at == 0 { Vec::new() } else { (at * 110).to_be_bytes().to_vec() };
            Entry { suffix: separator, child: first as u32 + at, ..Entry::default() }
        })
        .collect();
    node(&mut data, root, BRANCH_KIND, &children);
    files.write("data", &data);
    files
}

/// The same, and the file goes on with nothing for longer than a run of a GiB.
fn runs_in_sparse_space() -> Files {
    let files = runs_everywhere(3);
    let data = fs::File::options().write(true).open(files.dir.path().join("data"));
    data.and_then(|data| data.set_len((1 << 30) + (1 << 20))).expect("a sparse file");
    files
}

/// The same, with right first pages for the runs that lie inside the file: only their checksums are
/// wrong.
fn runs_that_begin_in_sparse_space() -> Files {
    let files = runs_in_sparse_space();
    let data = fs::File::options().read(true).write(true).open(files.dir.path().join("data"));
    let data = data.expect("the data file");
    let (tree, _) = tree("numbers");
    for leaf in 0..3_u64 {
        let number = 19 + leaf * 17;
        let mut page = vec![0; PAGE_SIZE];
        put(&mut page, 4, &(number as u32).to_le_bytes());
        put(&mut page, 16, &[3]);
        put(&mut page, 20, &tree.to_le_bytes());
        put(&mut page, 24, &(1_u64 << 30).to_le_bytes());
        data.write_all_at(&page, number * PAGE_SIZE as u64).expect("a page");
    }
    files
}

/// A field of both meta pages at its highest.
fn highest_meta(offset: usize, value: &[u8]) -> Files {
    let files = Files::new(&template::all()[0]);
    let mut data = files.template.data().to_vec();
    for page in data[..2 * PAGE_SIZE].chunks_mut(PAGE_SIZE) {
        put(page, offset, value);
        stamp_header(page);
    }
    files.write("data", &data);
    files
}

/// The databases, and what each would make a reader allocate that believed it.
fn hostile() -> Vec<(&'static str, Files)> {
    let [checkpointed, to_replay] = template::all();
    let mut cases = vec![
        ("nothing wrong", Files::new(checkpointed)),
        ("records to replay", Files::new(to_replay)),
        ("runs of a GiB in every entry", runs_everywhere(200)),
        ("runs of a GiB in sparse space", runs_in_sparse_space()),
        ("runs that begin in sparse space", runs_that_begin_in_sparse_space()),
        ("the highest page count", highest_meta(76, &4_294_900_000_u32.to_le_bytes())),
    ];
    for (name, len) in [("a block of 30 MiB", 120 << 10), ("a block of 500 MiB", 2 << 20)] {
        let files = Files::new(to_replay);
        let (block, raw_len) = bomb(len);
        append(&files, (true, 1, raw_len), &block);
        cases.push((name, files));
    }
    let files = Files::new(to_replay);
    append(&files, (true, 1, 3 << 30), &[0; 64]);
    cases.push(("3 GiB from 64 bytes", files));
    let files = Files::new(to_replay);
    append(&files, (false, u32::MAX, 0), &[]);
    cases.push(("four billion page changes", files));
    // Each change of 8 bytes is a page of zeros.
    let changes: Vec<u8> =
        (100..200_000_u32).flat_map(|page| [[1, 1, 0, 0], page.to_le_bytes()].concat()).collect();
    let files = Files::new(to_replay);
    append(&files, (false, changes.len() as u32 / 8, changes.len() as u64), &changes);
    cases.push(("200,000 pages of zeros", files));
    // A run of a GiB, most of it zeros that are not stored.
    let mut run = vec![2, 0, 0, 0, 60, 0, 0, 0, 1, 0, 4, 0, 0, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0];
    run.extend([0; 40]);
    let files = Files::new(to_replay);
    append(&files, (false, 1, run.len() as u64), &run);
    cases.push(("a run of a GiB in 64 bytes", files));
    cases
}

#[test]
fn hostile_file_costs_at_most_64_mib_and_twice_its_length() {
    // Templates are made once, and are none of it.
    template::all();
    let (vec, peak) = peak_of(|| vec![1_u8; 80 * MIB]);
    assert!(peak >= vec.len(), "a file that costs too much would not be found");
    drop(vec);
    let mut count = 0;
    let mut worst = 0;
    for (name, files) in hostile() {
        let len = files.len();
        let (opened, peak) = peak_of(|| look(&files));
        println!("{name}: {len} bytes of files, {peak} bytes at the peak, opened: {opened}");
        assert!(peak <= 64 * MIB + 2 * len, "{name}: {peak} bytes for {len}");
        worst = worst.max(peak);
        count += 1;
    }
    for target in [Target::OpenAndCheck, Target::JournalTail, Target::Page] {
        for (number, bytes) in seeds(target).iter().enumerate() {
            let ((), peak) = peak_of(|| target.run(bytes));
            // The simulated disk is memory too: its files, their maps, and scratch files.
            let disk = 16 * MIB + template::SCRATCH_MEMORY;
            assert!(peak <= 64 * MIB + disk, "{}, seed {number}: {peak} bytes", target.name());
            worst = worst.max(peak);
            count += 1;
        }
    }
    let text = format!("{count} hostile files, {} MiB at most", worst / MIB);
    tally::note(5, "memory of hostile files", &text);
}
