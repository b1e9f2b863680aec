//! A filesystem that forgets, and every state in which a power cut may leave it.
//!
//! What a program did is a list of steps on top of what is durable. A model says which states a cut after them may leave:
//!
//! - **ext4, data=ordered.** Changes of names and of reserved sizes reach the disk in their order: any beginning of them, at least up
//!   to the last that touched something flushed (`fsync` commits the journal up to that inode's last transaction, and with it all before).
//!   Unflushed data: reserved blocks (`fallocate`, unwritten extents) are there or read as zeros, each by itself; without a
//!   reservation the size grows as blocks are written back (delayed allocation): any number of whole blocks from the start.
//! - **f2fs, fsync_mode=posix.** Names up to any checkpoint; a flushed directory and syncfs are one (`need_do_checkpoint`). A flushed
//!   file comes back by itself, with its name, on top of an older checkpoint (roll-forward recovery), if its directory is in a
//!   checkpoint, which the flush sees to. A size is as in the checkpoint; unflushed blocks are there or zeros, each by itself.
//! - **weak POSIX.** What the standard promises and no more. A name is durable once its directory was flushed, data once the file was. Of
//!   what was not, each name changes or does not, by itself (a rename is two); each block is new, zeros or some old file's, and the
//!   file has any of its sizes. A new directory is a name in its parent, like any other.
//!
//! Where a kernel's order is finer, a model allows more than the kernel does, never less. Files are written once, from the start.

use super::Files;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashSet},
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

/// Small, so that small pictures have several.
const BLOCK: usize = 512;
/// What an old file left in a block.
const STALE: u8 = 0xA5;
const ROOT: Ino = 0;

type Ino = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Model {
    Ext4,
    F2fs,
    Weak,
}
pub const MODELS: [Model; 3] = [Model::Ext4, Model::F2fs, Model::Weak];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Node {
    Dir(BTreeMap<String, Ino>),
    File(Vec<u8>),
}

/// A filesystem at rest. Equal ones are equal whatever their inodes were once called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Image(BTreeMap<Ino, Node>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    Make { dir: Ino, name: String, ino: Ino, is_dir: bool },
    Remove { dir: Ino, name: String },
    Rename { from: (Ino, String), to: (Ino, String), ino: Ino },
    Size(Ino, usize),
    Write(Ino, Vec<u8>),
    Sync(Ino),
    SyncAll,
}

impl Step {
    /// The names that change, and what they lead to then.
    fn names(&self) -> Vec<(Ino, &String, Option<Ino>)> {
        match self {
            Self::Make { dir, name, ino, .. } => vec![(*dir, name, Some(*ino))],
            Self::Remove { dir, name } => vec![(*dir, name, None)],
            Self::Rename { from, to, ino } => vec![(from.0, &from.1, None), (to.0, &to.1, Some(*ino))],
            _ => vec![],
        }
    }
    fn touches(&self) -> Vec<Ino> {
        match self {
            Self::Make { dir, ino, .. } => vec![*dir, *ino],
            Self::Remove { dir, .. } => vec![*dir],
            Self::Rename { from, to, ino } => vec![from.0, to.0, *ino],
            Self::Size(ino, _) | Self::Write(ino, _) => vec![*ino],
            Self::Sync(_) | Self::SyncAll => vec![],
        }
    }
}

impl Image {
    pub fn empty() -> Self {
        Self([(ROOT, Node::Dir(BTreeMap::new()))].into())
    }
    fn dir(&mut self, ino: Ino) -> &mut BTreeMap<String, Ino> {
        match self.0.get_mut(&ino) {
            Some(Node::Dir(names)) => names,
            other => panic!("inode {ino} is not a directory: {other:?}"),
        }
    }
    fn point(&mut self, dir: Ino, name: &str, to: Option<Ino>) {
        match to {
            Some(ino) => _ = self.dir(dir).insert(name.to_owned(), ino),
            None => _ = self.dir(dir).remove(name),
        }
    }
    fn make(&mut self, step: &Step) {
        if let Step::Make { ino, is_dir, .. } = step {
            self.0.insert(*ino, if *is_dir { Node::Dir(BTreeMap::new()) } else { Node::File(Vec::new()) });
        }
    }
    fn apply(&mut self, step: &Step) {
        self.make(step);
        for (dir, name, to) in step.names() {
            self.point(dir, name, to);
        }
        match step {
            Step::Size(ino, len) => _ = self.0.insert(*ino, Node::File(vec![0; *len])),
            Step::Write(ino, data) => _ = self.0.insert(*ino, Node::File(data.clone())),
            _ => {}
        }
    }
    fn find(&self, path: &Path) -> Option<Ino> {
        path.iter().try_fold(ROOT, |at, name| match self.0.get(&at)? {
            Node::Dir(names) => names.get(name.to_str()?).copied(),
            Node::File(_) => None,
        })
    }
    pub fn read(&self, path: &Path) -> Option<&[u8]> {
        match self.0.get(&self.find(path)?)? {
            Node::File(data) => Some(data),
            Node::Dir(_) => None,
        }
    }
    /// Every file, by path.
    pub fn files(&self) -> Vec<(PathBuf, &[u8])> {
        let (mut found, mut dirs) = (Vec::new(), vec![(ROOT, PathBuf::new())]);
        while let Some((at, path)) = dirs.pop() {
            match &self.0[&at] {
                Node::Dir(names) => dirs.extend(names.iter().map(|(name, ino)| (*ino, path.join(name)))),
                Node::File(data) => found.push((path, data.as_slice())),
            }
        }
        found
    }
    /// Only what can be reached, numbered in the order of names.
    fn settled(&self) -> Self {
        fn walk(from: &Image, at: Ino, to: &mut Image, known: &mut BTreeMap<Ino, Ino>) -> Ino {
            if let Some(ino) = known.get(&at) {
                return *ino;
            }
            let ino = known.len();
            known.insert(at, ino);
            let node = match &from.0[&at] {
                Node::File(data) => Node::File(data.clone()),
                Node::Dir(names) => Node::Dir(names.iter().map(|(name, child)| (name.clone(), walk(from, *child, to, known))).collect()),
            };
            to.0.insert(ino, node);
            ino
        }
        let mut to = Self(BTreeMap::new());
        walk(self, ROOT, &mut to, &mut BTreeMap::new());
        to
    }
    /// Adds this image once for each combination of what its unflushed files may hold.
    fn spread(self, unflushed: &BTreeMap<Ino, Vec<Vec<u8>>>, into: &mut HashSet<Image>) {
        let reached: BTreeSet<Ino> = self.reached();
        let open: Vec<(&Ino, &Vec<Vec<u8>>)> = unflushed.iter().filter(|(ino, _)| reached.contains(ino)).collect();
        each_choice(&open.iter().map(|(_, ways)| ways.len()).collect::<Vec<_>>(), |choice| {
            let mut image = self.clone();
            for ((ino, ways), way) in open.iter().zip(choice) {
                image.0.insert(**ino, Node::File(ways[*way].clone()));
            }
            into.insert(image.settled());
        });
    }
    fn reached(&self) -> BTreeSet<Ino> {
        let (mut reached, mut open) = (BTreeSet::new(), vec![ROOT]);
        while let Some(at) = open.pop() {
            if let (true, Node::Dir(names)) = (reached.insert(at), &self.0[&at]) {
                open.extend(names.values());
            }
        }
        reached
    }
}

/// Calls `with` once for each way to choose one of so many, for each place.
fn each_choice(ways: &[usize], mut with: impl FnMut(&[usize])) {
    let mut choice = vec![0; ways.len()];
    loop {
        with(&choice);
        let Some(at) = (0..ways.len()).find(|at| choice[*at] + 1 < ways[*at]) else { return };
        choice[at] += 1;
        choice[..at].fill(0);
    }
}

/// What a file of these bytes may hold if each block is new or one of these fillers.
fn torn(data: &[u8], fillers: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    each_choice(&vec![fillers.len() + 1; data.len().div_ceil(BLOCK)], |choice| {
        let mut torn = data.to_vec();
        for (block, way) in torn.chunks_mut(BLOCK).zip(choice) {
            if let Some(filler) = way.checked_sub(1) {
                block.fill(fillers[filler]);
            }
        }
        all.push(torn);
    });
    all
}

fn beginnings(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..data.len()).step_by(BLOCK).chain([data.len()]).map(|len| &data[..len])
}

/// Every state that a power cut after these steps may leave.
pub fn after_a_cut(model: Model, base: &Image, steps: &[Step]) -> HashSet<Image> {
    match model {
        Model::Ext4 => ext4(base, steps),
        Model::F2fs => f2fs(base, steps),
        Model::Weak => weak(base, steps),
    }
}

/// The files written and not flushed since.
fn unflushed(steps: &[Step]) -> BTreeMap<Ino, &Vec<u8>> {
    let mut open = BTreeMap::new();
    for step in steps {
        match step {
            Step::Write(ino, data) => _ = open.insert(*ino, data),
            Step::Sync(ino) => _ = open.remove(ino),
            Step::SyncAll => open.clear(),
            _ => {}
        }
    }
    open
}

/// The files with reserved room, neither written nor flushed since.
fn reserved(steps: &[Step]) -> BTreeMap<Ino, usize> {
    let mut open = BTreeMap::new();
    for step in steps {
        match step {
            Step::Size(ino, len) => _ = open.insert(*ino, *len),
            Step::Write(ino, _) | Step::Sync(ino) => _ = open.remove(ino),
            Step::SyncAll => open.clear(),
            _ => {}
        }
    }
    open
}

fn size_step(steps: &[Step], of: Ino) -> Option<usize> {
    steps.iter().position(|step| matches!(step, Step::Size(ino, _) if *ino == of))
}

fn ext4(base: &Image, steps: &[Step]) -> HashSet<Image> {
    let (mut floor, mut touched) = (0, BTreeMap::new());
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Sync(ino) => floor = floor.max(touched.get(ino).copied().unwrap_or(0)),
            Step::SyncAll => floor = at + 1,
            _ => touched.extend(step.touches().into_iter().map(|ino| (ino, at + 1))),
        }
    }
    let mut found = HashSet::new();
    for committed in floor..=steps.len() {
        let mut image = base.clone();
        steps[..committed].iter().for_each(|step| image.apply(step));
        let ways = unflushed(steps).into_iter().map(|(ino, data)| {
            let ways = match size_step(steps, ino) {
                Some(at) if at < committed => torn(data, &[0]),
                Some(_) => vec![vec![]],
                None => beginnings(data).map(<[u8]>::to_vec).collect(),
            };
            (ino, ways)
        });
        image.spread(&ways.collect(), &mut found);
    }
    found
}

fn f2fs(base: &Image, steps: &[Step]) -> HashSet<Image> {
    let (mut floor, mut made, mut rolled) = (0, BTreeMap::new(), Vec::new());
    let mut live = base.clone();
    for (at, step) in steps.iter().enumerate() {
        live.apply(step);
        match step {
            Step::SyncAll => floor = at + 1,
            Step::Sync(ino) => match &live.0[ino] {
                Node::Dir(_) => floor = at + 1,
                Node::File(data) => {
                    let names = live.0.iter().filter_map(|(dir, node)| match node {
                        Node::Dir(names) => names.iter().find(|(_, to)| *to == ino).map(|(name, _)| (*dir, name.clone())),
                        Node::File(_) => None,
                    });
                    for (dir, name) in names.collect::<Vec<_>>() {
                        floor = floor.max(made.get(&dir).copied().unwrap_or(0));
                        rolled.push((at, dir, name, *ino, data.clone()));
                    }
                }
            },
            Step::Make { ino, .. } => _ = made.insert(*ino, at + 1),
            _ => {}
        }
    }
    let mut found = HashSet::new();
    for checkpoint in floor..=steps.len() {
        let mut image = base.clone();
        steps[..checkpoint].iter().for_each(|step| image.apply(step));
        for (_, dir, name, ino, data) in rolled.iter().filter(|(at, ..)| *at >= checkpoint) {
            image.0.insert(*ino, Node::File(data.clone()));
            image.point(*dir, name, Some(*ino));
        }
        let sized = |ino| steps[..checkpoint].iter().any(|step| matches!(step, Step::Size(of, _) | Step::Write(of, _) if *of == ino));
        let ways = unflushed(steps).into_iter().map(|(ino, data)| (ino, if sized(ino) { torn(data, &[0]) } else { vec![vec![]] }));
        image.spread(&ways.collect(), &mut found);
    }
    found
}

fn weak(base: &Image, steps: &[Step]) -> HashSet<Image> {
    let mut image = base.clone();
    // What each name that changed may lead to.
    let mut names: BTreeMap<(Ino, &String), Vec<Option<Ino>>> = BTreeMap::new();
    for step in steps {
        image.make(step);
        if let Step::Size(..) | Step::Write(..) = step {
            image.apply(step);
        }
        for (dir, name, to) in step.names() {
            let before = base.0.get(&dir).and_then(|node| match node {
                Node::Dir(names) => names.get(name).copied(),
                Node::File(_) => None,
            });
            names.entry((dir, name)).or_insert_with(|| vec![before]).push(to);
        }
        for ((dir, _), ways) in &mut names {
            if matches!(step, Step::SyncAll) || *step == Step::Sync(*dir) {
                ways.drain(..ways.len() - 1);
            }
        }
    }
    let sizes = |data: &Vec<u8>| beginnings(data).flat_map(|data| torn(data, &[0, STALE])).collect::<Vec<_>>();
    let mut ways: BTreeMap<Ino, Vec<Vec<u8>>> = unflushed(steps).into_iter().map(|(ino, data)| (ino, sizes(data))).collect();
    ways.extend(reserved(steps).into_iter().map(|(ino, len)| (ino, vec![vec![], vec![0; len], vec![STALE; len]])));
    let mut found = HashSet::new();
    let places: Vec<_> = names.iter().collect();
    each_choice(&places.iter().map(|(_, ways)| ways.len()).collect::<Vec<_>>(), |choice| {
        let mut image = image.clone();
        for (((dir, name), ways), way) in places.iter().zip(choice) {
            image.point(*dir, name, ways[*way]);
        }
        image.spread(&ways, &mut found);
    });
    found
}

/// A filesystem that notes every step. Clones are the same one.
#[derive(Clone)]
pub struct Sim(Rc<RefCell<Inner>>);

struct Inner {
    base: Image,
    steps: Vec<Step>,
    live: Image,
    next: Ino,
    can: Can,
    held: Option<Vec<Step>>,
}

/// What it does, and what it only says it does: the controls.
#[derive(Debug, Clone, Copy)]
pub struct Can {
    pub reserve: bool,
    /// The flushes of directories that are done, by depth below the root.
    pub sync_dir: fn(usize) -> bool,
    /// Whether the flush of everything is done when nothing was written yet: the first one of each process.
    pub sync_at_start: bool,
}
pub const ALL: Can = Can { reserve: true, sync_dir: |_| true, sync_at_start: true };

impl Sim {
    /// What is durable, and what was done to it since: nothing after a power cut, something after the process was killed.
    pub fn new(base: Image, steps: Vec<Step>, can: Can) -> Self {
        let mut live = base.clone();
        steps.iter().for_each(|step| live.apply(step));
        let made = steps.iter().filter(|step| matches!(step, Step::Make { .. })).count();
        let next = base.0.len() + made;
        Self(Rc::new(RefCell::new(Inner { base, steps, live, next, can, held: None })))
    }
    pub fn steps(&self) -> Vec<Step> {
        self.0.borrow().steps.clone()
    }
    pub fn len(&self) -> usize {
        self.0.borrow().steps.len()
    }
    pub fn base(&self) -> Image {
        self.0.borrow().base.clone()
    }
    pub fn live(&self) -> Image {
        self.0.borrow().live.clone()
    }
    /// From here on flushes of files are put off.
    pub fn hold(&self) {
        self.0.borrow_mut().held = Some(Vec::new());
    }
    pub fn release(&self) {
        let mut inner = self.0.borrow_mut();
        let held = inner.held.take().unwrap_or_default();
        inner.steps.extend(held);
    }
}

impl Inner {
    fn step(&mut self, step: Step) {
        self.live.apply(&step);
        self.steps.push(step);
    }
    fn flush(&mut self, step: Step) {
        match &mut self.held {
            Some(held) => held.push(step),
            None => self.step(step),
        }
    }
    fn find(&self, path: &Path) -> io::Result<Ino> {
        self.live.find(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn place(&self, path: &Path) -> io::Result<(Ino, String)> {
        let dir = self.find(path.parent().unwrap())?;
        Ok((dir, path.file_name().and_then(OsStr::to_str).unwrap().to_owned()))
    }
    fn make(&mut self, path: &Path, is_dir: bool) -> io::Result<Ino> {
        let (dir, name) = self.place(path)?;
        if self.live.find(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ino = self.next;
        self.next += 1;
        self.step(Step::Make { dir, name, ino, is_dir });
        Ok(ino)
    }
}

impl Files for Sim {
    type File = Ino;

    fn create(&self, path: &Path) -> io::Result<Ino> {
        self.0.borrow_mut().make(path, false)
    }
    fn reserve(&self, file: &Ino, bytes: u64) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        if inner.can.reserve {
            inner.step(Step::Size(*file, bytes as usize));
        }
        Ok(())
    }
    fn write(&self, file: &mut Ino, head: &[u8], rest: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().step(Step::Write(*file, [head, rest].concat()));
        Ok(())
    }
    fn sync(&self, file: &Ino) -> io::Result<()> {
        self.0.borrow_mut().flush(Step::Sync(*file));
        Ok(())
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        let ino = inner.find(dir)?;
        if (inner.can.sync_dir)(dir.iter().count()) {
            inner.step(Step::Sync(ino));
        }
        Ok(())
    }
    fn sync_all(&self) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        let starting = std::mem::replace(&mut inner.can.sync_at_start, true);
        if starting {
            inner.flush(Step::SyncAll);
        }
        Ok(())
    }
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.borrow_mut().make(dir, true).map(drop)
    }
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        let ino = inner.find(dir)?;
        if !inner.live.dir(ino).is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (dir, name) = inner.place(dir)?;
        inner.step(Step::Remove { dir, name });
        Ok(())
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        inner.find(path)?;
        let (dir, name) = inner.place(path)?;
        inner.step(Step::Remove { dir, name });
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        let ino = inner.find(from)?;
        // Two names of one file: POSIX leaves both.
        if inner.live.find(to) != Some(ino) {
            let (from, to) = (inner.place(from)?, inner.place(to)?);
            inner.step(Step::Rename { from, to, ino });
        }
        Ok(())
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let inner = self.0.borrow();
        Ok(match inner.live.find(dir).map(|ino| &inner.live.0[&ino]) {
            Some(Node::Dir(names)) => names.keys().map(|name| dir.join(name)).collect(),
            _ => Vec::new(),
        })
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inner = self.0.borrow();
        inner.find(path)?;
        inner.live.read(path).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
    fn is_dir(&self, path: &Path) -> bool {
        let inner = self.0.borrow();
        inner.live.find(path).is_some_and(|ino| matches!(inner.live.0[&ino], Node::Dir(_)))
    }
    fn in_the_way(&self, dir: &Path) -> bool {
        self.is_file(dir)
    }
    fn is_file(&self, path: &Path) -> bool {
        let inner = self.0.borrow();
        inner.live.find(path).is_some_and(|ino| !matches!(inner.live.0[&ino], Node::Dir(_)))
    }
}

/// The models themselves, on histories short enough to count by hand.
mod models {
    use super::*;

    fn counts(does: impl Fn(&Sim) -> io::Result<()>) -> [usize; 3] {
        let sim = Sim::new(Image::empty(), Vec::new(), ALL);
        does(&sim).unwrap();
        MODELS.map(|model| after_a_cut(model, &sim.base(), &sim.steps()).len())
    }

    #[test]
    fn each_model_allows_what_it_should_and_no_more() {
        let (a, b) = (Path::new("a"), Path::new("b"));
        let two_blocks = [1; BLOCK + 1];
        // Nothing, empty, and with its blocks there or not: 1 + 1 + 4. Weak: sizes 0, 1 and 2 blocks in 1 + 3 + 9 ways, or no name.
        assert_eq!(
            counts(|s| s.write(
                &mut {
                    let f = s.create(a)?;
                    s.reserve(&f, 513)?;
                    f
                },
                &two_blocks,
                &[]
            )),
            [6, 6, 14]
        );
        // Delayed allocation: nothing, or 0, 1 or 2 blocks; f2fs: the size may come before the data.
        assert_eq!(
            counts(|s| {
                s.write(&mut { s.create(a)? }, &two_blocks, &[])?;
                Ok(())
            })[1..],
            [6, 14]
        );
        // Flushed data, unflushed name: only the weak one may lose it.
        assert_eq!(
            counts(|s| {
                let mut f = s.create(a)?;
                s.write(&mut f, &two_blocks, &[])?;
                s.sync(&f)
            }),
            [1, 1, 2]
        );
        // Two names, no flush: in order, or any of them.
        assert_eq!(
            counts(|s| {
                s.create(a)?;
                s.create(b).map(drop)
            }),
            [3, 3, 4]
        );
        // A flushed file brings the names before it along on ext4, and only itself on f2fs.
        assert_eq!(
            counts(|s| {
                s.create(a)?;
                let f = s.create(b)?;
                s.sync(&f)
            }),
            [1, 2, 4]
        );
        // Neither flushes a directory's other changes for weak POSIX; the directory's flush does.
        assert_eq!(
            counts(|s| {
                s.create(a)?;
                s.create(b)?;
                s.sync_dir(Path::new(""))
            }),
            [1, 1, 1]
        );
        // A directory flushed itself, but not the name it has.
        assert_eq!(
            counts(|s| {
                s.make_dir(a)?;
                s.create(&a.join("x"))?;
                s.sync_dir(a)
            }),
            [1, 1, 2]
        );
        // A rename is one change, or two.
        assert_eq!(
            counts(|s| {
                s.create(a)?;
                s.sync_all()?;
                s.rename(a, b)
            }),
            [2, 2, 4]
        );
        // A flush of what has not changed commits nothing.
        assert_eq!(
            counts(|s| {
                let f = s.create(a)?;
                s.sync_all()?;
                s.create(b)?;
                s.sync(&f)
            }),
            [2, 2, 2]
        );
        assert_eq!(
            counts(|s| {
                s.make_dir(a)?;
                s.create(b)?;
                s.sync_all()
            }),
            [1, 1, 1]
        );
    }
}
