//! Power cuts, simulated: the files.
//!
//! The store's own code for files, and its own recovery, run on a filesystem that forgets (`files/tests.rs`). Stories of two or three
//! pictures in new directories, with a deletion, are cut after every step, and in every state that the filesystem's model allows then;
//! or the process is killed there, and what it did not flush is still seen. Recovery runs on each of them, and is cut or killed
//! after every step too; then it runs again, stores one more picture, is cut once more, and runs a last time. Equal states are gone through
//! once. A commit of the index is atomic and durable when it returns: `index/tests.rs` sees to that.
//!
//! After each recovery, and after each picture stored since: every row that was committed is there, every row's file is whole under its
//! name, no deleted picture is back, no whole picture lies about without a row, none is counted twice, and no number is given twice.

use super::{Adopting, Found, go_through, load_counters};
use crate::image::meta;
use crate::model::{Hash8, Seq, StoreId};
use crate::store::adopt::{FIRST_ORD, tests::picture};
use crate::store::blobs::{Blob, Blobs, QUARANTINE, WriteError};
use crate::store::files::tests::{ALL, Can, Image, MODELS, Model, Sim, Step, after_a_cut};
use crate::store::index::{Change, Counters, Index, Key, Query, SnapRow};
use crate::store::path::{path_of, seq_of};
use redb::StorageBackend;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// An index file in memory that can be copied.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);
impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(&self.0.lock().unwrap()[offset as usize..][..out.len()]);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// The index after some commit.
struct Known {
    index: Index,
    memory: Memory,
    counters: Counters,
    rows: BTreeMap<Key, SnapRow>,
    deleted: BTreeSet<u64>,
}

/// Every index that any history has led to, each once: equal commits on equal ones lead to equal ones.
struct Past {
    all: Vec<Known>,
    then: HashMap<(usize, u64, String), usize>,
    /// Pictures made, and files judged: the same ones again and again.
    pictures: HashMap<(u64, u32), Picture>,
    judged: HashMap<Vec<u8>, Option<Hash8>>,
}
type Picture = (SnapRow, Vec<u8>, Vec<u8>, Seq);

impl Past {
    fn new() -> Self {
        let memory = Memory::default();
        let index = Index::on(memory.clone()).unwrap();
        let counters = load_counters(&index).unwrap();
        let new = Known { index, memory, counters, rows: BTreeMap::new(), deleted: BTreeSet::new() };
        Self { all: vec![new], then: HashMap::new(), pictures: HashMap::new(), judged: HashMap::new() }
    }
    fn commit(&mut self, on: usize, change: &Change, next_seq: u64) -> usize {
        let key = (on, next_seq, format!("{change:?}"));
        if let Some(known) = self.then.get(&key) {
            return *known;
        }
        let before = &self.all[on];
        let memory = Memory(Arc::new(Mutex::new(before.memory.0.lock().unwrap().clone())));
        let index = Index::on(memory.clone()).unwrap();
        let mut counters = Counters { next_seq, ..before.counters.clone() };
        index.commit(change, &mut counters, true).unwrap();
        let rows = index.list(&Query { limit: 99, ..Query::default() }).unwrap().into_iter().collect();
        let deleted = before.deleted.iter().copied().chain(change.deletes.iter().map(|((_, seq), _)| *seq)).collect();
        self.all.push(Known { index, memory, counters, rows, deleted });
        self.then.insert(key, self.all.len() - 1);
        self.all.len() - 1
    }
}

/// What is done wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Right,
    CommitBeforeSync,
    UnlinkBeforeCommit,
}

#[derive(Debug, Clone, Copy)]
struct Setting {
    model: Model,
    syncfs: bool,
    can: Can,
    order: Order,
    /// Near a bucket's end the pictures lie in two directories.
    first_seq: u64,
    group: u64,
}

/// A process at work on the files.
struct Life<'a> {
    past: &'a mut Past,
    sim: Sim,
    blobs: Blobs<Sim>,
    known: usize,
    counters: Counters,
    /// The indexes committed, and after how many steps.
    marks: Vec<(usize, usize)>,
    garbage_gone: Vec<PathBuf>,
    order: Order,
    /// Tells apart what different lives write under one number.
    no: u32,
}

impl<'a> Life<'a> {
    /// A start: the order of `try_open`.
    fn start(past: &'a mut Past, sim: Sim, known: usize, setting: &Setting, no: u32) -> Result<Self, String> {
        let marks = vec![(sim.len(), known)];
        let failed = |what: &str, e: io::Error| format!("{what}: {e}");
        let mut blobs = Blobs::on(sim.clone(), setting.syncfs).map_err(|e| failed("the directories cannot be made", e))?;
        let index = &past.all[known].index;
        let fresh = index.format().unwrap().is_none();
        let mut counters = load_counters(index).unwrap();
        let Found { mut change, .. } = go_through(index, &mut blobs, &mut counters, fresh, true).map_err(|e| match e {
            Adopting::Disk(e) => failed("the recovery fails", e),
            Adopting::Index(e) => panic!("{e}"),
        })?;
        if fresh {
            change.new_store = Some((FIRST_ORD, StoreId(7), "board".into()));
            counters.next_seq = setting.first_seq;
        }
        let order = setting.order;
        let mut life = Self { past, sim, blobs, known, counters, marks, garbage_gone: Vec::new(), order, no };
        life.commit(&change);
        Ok(life)
    }

    fn commit(&mut self, change: &Change) {
        self.known = self.past.commit(self.known, change, self.counters.next_seq);
        self.counters = self.past.all[self.known].counters.clone();
        self.marks.push((self.sim.len(), self.known));
    }

    /// The order of the writer's `step`.
    fn put(&mut self, pictures: u64) -> Result<(), String> {
        let mut change = Change { garbage_gone: std::mem::take(&mut self.garbage_gone), ..Change::default() };
        let mut made = Vec::new();
        for _ in 0..pictures {
            let key = (self.counters.next_seq, self.no);
            made.push(self.past.pictures.entry(key).or_insert_with(|| picture(key.0, key.1)).clone());
            self.counters.next_seq += 1;
        }
        let group: Vec<Blob> =
            made.iter().map(|(row, head, rest, seq)| Blob { path: path_of(&row.camera, *seq, &row.taken), head, rest }).collect();
        if self.order == Order::CommitBeforeSync {
            self.sim.hold();
        }
        self.blobs.write(&group).map_err(|(WriteError::Full(e) | WriteError::Fault(e))| format!("a picture cannot be written: {e}"))?;
        change.snaps.extend(made.iter().map(|(row, _, _, seq)| ((self.counters.ord, seq.0), row.clone())));
        self.commit(&change);
        self.sim.release();
        Ok(())
    }

    fn delete_oldest(&mut self) {
        let (key, row) = self.past.all[self.known].rows.iter().next().map(|(key, row)| (*key, row.clone())).unwrap();
        let garbage_gone = std::mem::take(&mut self.garbage_gone);
        if self.order == Order::UnlinkBeforeCommit {
            self.blobs.remove(&[path_of(&row.camera, Seq(key.1), &row.taken)]).unwrap();
        }
        self.commit(&Change { deletes: vec![(key, "older than keep.age")], garbage_gone, ..Change::default() });
        let garbage = self.past.all[self.known].index.garbage().unwrap();
        self.blobs.remove(&garbage).unwrap();
        self.garbage_gone = garbage;
    }
}

/// The hash that a file will be known by, if it is a whole picture.
fn judge(judged: &mut HashMap<Vec<u8>, Option<Hash8>>, file: &[u8]) -> Option<Hash8> {
    if let Some(known) = judged.get(file) {
        return *known;
    }
    *judged.entry(file.to_vec()).or_insert_with(|| meta::read(file).map(|meta| meta.hash8).ok())
}

/// What must hold after a recovery. `before`: the index as the cut left it.
fn check(past: &mut Past, before: usize, now: usize, files: &Image) -> Result<(), String> {
    let (before, now, judged) = (&past.all[before], &past.all[now], &mut past.judged);
    let lost = before.rows.keys().find(|key| !now.rows.contains_key(key));
    if let Some((_, seq)) = lost {
        return Err(format!("picture {seq} lost its row"));
    }
    if let Some((_, seq)) = now.rows.keys().find(|(_, seq)| now.deleted.contains(seq)) {
        return Err(format!("the deleted picture {seq} is back"));
    }
    let counted: u64 = now.counters.totals.values().map(|totals| totals.count).sum();
    if counted != now.rows.len() as u64 {
        return Err(format!("{} rows are counted as {counted}", now.rows.len()));
    }
    let mut of_rows = BTreeSet::new();
    for ((_, seq), row) in &now.rows {
        let path = path_of(&row.camera, Seq(*seq), &row.taken);
        match files.read(&path) {
            None => return Err(format!("picture {seq} has a row and no file")),
            Some(file) if judge(judged, file) != Some(row.hash8) || file.len() as u64 != row.bytes => {
                return Err(format!("picture {seq} is damaged"));
            }
            Some(_) => _ = of_rows.insert(path),
        }
    }
    let mut names = BTreeMap::new();
    for (path, file) in files.files() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let seq = seq_of(&name).unwrap();
        if seq.0 >= now.counters.next_seq {
            return Err(format!("number {seq} would be given again"));
        }
        if let Some(other) = names.insert(seq, name.clone()).filter(|other| *other != name) {
            return Err(format!("number {seq} was given to {other} and {name}"));
        }
        if now.deleted.contains(&seq.0) {
            return Err(format!("the file of the deleted picture {seq} is still there"));
        }
        if !of_rows.contains(&path) && !path.starts_with(QUARANTINE) && judge(judged, file).is_some() {
            return Err(format!("picture {seq} is whole and has no row"));
        }
    }
    match now.index.garbage().unwrap() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?} are still to be deleted")),
    }
}

/// Where a life begins: what is durable, what was done since, and the index.
struct Begin {
    base: Image,
    steps: Vec<Step>,
    known: usize,
    lives: u32,
    how: String,
}

#[derive(Debug, Default)]
struct Counts {
    /// States after a cut, of all models and ways, and how many of them differ.
    states: usize,
    unique: usize,
    kills: usize,
}

const LAST_LIFE: u32 = 3;

fn explore(setting: &Setting) -> Result<Counts, String> {
    let (mut past, mut counts) = (Past::new(), Counts::default());
    // `make soak`: cut or killed a third time, inside the recovery from the second.
    let soak = std::env::var_os("SHUTTER_SOAK_S").is_some();
    let (mut seen, hasher) = (HashSet::new(), RandomState::new());
    let mut open = VecDeque::from([Begin { base: Image::empty(), steps: Vec::new(), known: 0, lives: 0, how: String::new() }]);
    while let Some(begin) = open.pop_front() {
        let told = |what: String| format!("{what}{}", begin.how);
        let sim = Sim::new(begin.base.clone(), begin.steps.clone(), setting.can);
        let mut life = Life::start(&mut past, sim.clone(), begin.known, setting, begin.lives + 1).map_err(&told)?;
        let recovered = sim.len();
        if begin.lives == 0 {
            life.put(setting.group)?;
            if setting.group == 1 {
                life.put(1)?;
            }
            life.delete_oldest();
            life.put(1)?;
        } else {
            check(life.past, begin.known, life.known, &sim.live()).map_err(&told)?;
            life.put(1).map_err(&told)?;
            check(life.past, life.known, life.known, &sim.live()).map_err(|e| told(format!("{e}, after one more picture")))?;
        }
        let (marks, steps) = (life.marks, sim.steps());
        // Every moment: so many steps done, and this index.
        let ends = marks.iter().skip(1).map(|(at, _)| *at).chain([steps.len()]);
        let moments = marks.iter().zip(ends).flat_map(|((from, known), to)| (*from..=to).map(|at| (at, *known)));
        for (at, known) in moments {
            let end = at == steps.len();
            // What comes after the recovery is a story again; of that only the end is looked at.
            let cut = match begin.lives {
                0 => true,
                1 => at <= recovered || end,
                2 if soak => at <= recovered || end,
                2 => end && !begin.steps.is_empty(),
                _ => false,
            };
            if !cut {
                continue;
            }
            let lives = begin.lives + 1;
            let states = after_a_cut(setting.model, &begin.base, &steps[..at]);
            counts.states += states.len();
            for base in states {
                if seen.insert(hasher.hash_one((&base, known, lives))) {
                    counts.unique += 1;
                    let how = format!("{}; life {lives}: cut after step {at} of {}", begin.how, steps.len());
                    open.push_back(Begin { base, steps: Vec::new(), known, lives, how });
                }
            }
            if lives < LAST_LIFE && seen.insert(hasher.hash_one((&begin.base, &steps[..at], known, lives))) {
                counts.kills += 1;
                let how = format!("{}; life {lives}: killed after step {at} of {}", begin.how, steps.len());
                open.push_back(Begin { base: begin.base.clone(), steps: steps[..at].to_vec(), known, lives, how });
            }
        }
    }
    Ok(counts)
}

const ALONE: Setting = Setting { model: Model::Weak, syncfs: false, can: ALL, order: Order::Right, first_seq: 999, group: 1 };

fn every_story(model: Model) {
    let group = Setting { model, group: 2, first_seq: 998, ..ALONE };
    let stories = [
        ("three alone", Setting { model, ..ALONE }),
        ("three alone, no fallocate", Setting { model, can: Can { reserve: false, ..ALL }, ..ALONE }),
        ("two together and one, fdatasync each", group),
        ("two together and one, syncfs", Setting { syncfs: true, ..group }),
        ("two together in two directories and one, syncfs", Setting { syncfs: true, first_seq: 999, ..group }),
    ];
    let (began, mut all) = (std::time::Instant::now(), Counts::default());
    for (story, setting) in stories {
        let Counts { states, unique, kills } = explore(&setting).unwrap_or_else(|e| panic!("{story}, {model:?}: {e}"));
        eprintln!("files, {model:?}, {story}: {states} states after a cut, {unique} of them unique, {kills} after a kill");
        assert!(unique > 200 && states > unique && kills > 200, "the story was not told to its end");
        (all.states, all.unique, all.kills) = (all.states + states, all.unique + unique, all.kills + kills);
    }
    eprintln!("files, {model:?}: {all:?}; lost 0, damaged 0, back 0, numbers given twice 0; {:?}", began.elapsed());
}

#[test]
fn whatever_a_cut_leaves_on_ext4_holds_every_picture_that_was_stored() {
    every_story(Model::Ext4);
}

#[test]
fn whatever_a_cut_leaves_on_f2fs_holds_every_picture_that_was_stored() {
    every_story(Model::F2fs);
}

#[test]
fn whatever_a_cut_leaves_by_the_standard_holds_every_picture_that_was_stored() {
    every_story(Model::Weak);
}

#[test]
fn a_wrong_order_of_steps_is_found_out() {
    let right = ALONE;
    let wrong = [
        ("no flush of a directory", Setting { can: Can { sync_dir: |_| false, ..ALL }, ..right }),
        ("no flush of a new directory's parent", Setting { can: Can { sync_dir: |depth| depth >= 3, ..ALL }, ..right }),
        ("commit before the file's flush", Setting { order: Order::CommitBeforeSync, ..right }),
        ("commit before the file's flush, group", Setting { order: Order::CommitBeforeSync, syncfs: true, group: 2, ..right }),
        ("unlink before the commit", Setting { order: Order::UnlinkBeforeCommit, ..right }),
        ("no flush at the start", Setting { can: Can { sync_at_start: false, ..ALL }, ..right }),
    ];
    for (what, setting) in wrong {
        let told = MODELS.map(|model| explore(&Setting { model, ..setting }).err());
        for (model, told) in MODELS.iter().zip(&told) {
            eprintln!("control, {what}, {model:?}: {}", told.as_deref().unwrap_or("survives"));
        }
        assert!(told.iter().any(Option::is_some), "{what}: nobody saw it");
    }
}
