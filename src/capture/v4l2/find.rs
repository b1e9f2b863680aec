//! Which node is the camera that was meant: by its by-id name, its USB serial, its port, or as a node.
//!
//! Numbers of nodes are given in the order of plugging, so a camera is looked up anew at each opening. A name that fits two cameras is
//! refused, never guessed: of two cameras of one model without serials, the by-id link belongs to whichever came last.
//!
//! Pure over two directories, so that tests can make up a machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where devices and the kernel's account of them are.
#[derive(Debug, Clone)]
pub struct Places {
    pub dev: PathBuf,
    pub sys: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { dev: "/dev".into(), sys: "/sys".into() }
    }
}

/// A node, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub path: PathBuf,
    /// The card's name, as the driver gives it.
    pub name: String,
    pub usb: Option<Usb>,
    /// Names that stay, from `/dev/v4l/by-id` and `by-path`.
    pub links: Vec<PathBuf>,
    /// Order of the nodes of one device: its interface, the index within, the number.
    order: (String, u32, u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usb {
    /// Such as `1-1.2`: bus, then the port of each hub on the way.
    pub port: String,
    /// None on many cheap cameras.
    pub serial: Option<String>,
    /// Vendor and product number.
    model: String,
}

impl Node {
    /// For a person who has several to choose from.
    fn told(&self) -> String {
        let usb = self.usb.as_ref().map_or(String::new(), |usb| {
            let serial = usb.serial.as_ref().map_or("without a serial".to_owned(), |serial| format!("serial {serial}"));
            format!("{serial}, port {}, ", usb.port)
        });
        format!("{} ({usb}{})", self.name, self.path.display())
    }
}

/// Why there is no one camera.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    /// It may be plugged in at any moment.
    Absent(String),
    /// Only a better name helps.
    Ambiguous(String),
}

/// All video nodes in the order of their numbers.
pub fn all(places: &Places) -> Vec<Node> {
    let links = links(&places.dev);
    let class = places.sys.join("class/video4linux");
    let names = fs::read_dir(&class).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut nodes: Vec<Node> = names.filter_map(|name| node(&name, &class.join(&name), places, &links)).collect();
    nodes.sort_by_key(|node| node.order.2);
    nodes
}

/// The nodes of the camera that is meant, the likeliest to give pictures first.
/// # Errors
/// None fits, or more than one camera does.
pub fn find(wanted: &str, places: &Places) -> Result<Vec<Node>, Lost> {
    let all = all(places);
    if wanted.starts_with('/') {
        return by_path(Path::new(wanted), &all);
    }
    let full = format!("{wanted}-video-index0");
    let link =
        |node: &Node| node.links.iter().find(|link| link.file_name().is_some_and(|name| name == wanted || name == full.as_str())).cloned();
    if let Some(link) = all.iter().find_map(link) {
        return by_path(&link, &all);
    }
    let on_port: Vec<_> = all.iter().filter(|node| node.usb.as_ref().is_some_and(|usb| usb.port == wanted)).collect();
    let of_serial = || all.iter().filter(|node| node.usb.as_ref().and_then(|usb| usb.serial.as_deref()) == Some(wanted)).collect();
    let fitting: Vec<&Node> = if on_port.is_empty() { of_serial() } else { on_port };
    let Some(first) = fitting.first() else { return Err(Lost::Absent(absent(wanted, &all))) };
    if fitting.iter().any(|node| port(node) != port(first)) {
        return Err(ambiguous(&format!("the serial {wanted}"), &fitting));
    }
    Ok(in_order(fitting))
}

fn by_path(path: &Path, all: &[Node]) -> Result<Vec<Node>, Lost> {
    let absent = || Lost::Absent(format!("there is no {}; {}", path.display(), there_is(all)));
    let target = path.canonicalize().map_err(|_| absent())?;
    let Some(node) = all.iter().find(|node| node.path.canonicalize().is_ok_and(|own| own == target)) else {
        // A node that the kernel's account does not know: asking it will tell.
        let name = target.display().to_string();
        return Ok(vec![Node { path: target, name, usb: None, links: Vec::new(), order: Default::default() }]);
    };
    let twins: Vec<&Node> = all.iter().filter(|other| same_to_udev(node, other)).collect();
    let by_id = path.parent().is_some_and(|dir| dir.ends_with("by-id"));
    if by_id && twins.iter().any(|twin| port(twin) != port(node)) {
        return Err(ambiguous(&format!("the name {}", path.file_name().unwrap_or_default().to_string_lossy()), &twins));
    }
    Ok(vec![node.clone()])
}

/// Whether by-id names cannot tell them apart.
fn same_to_udev(one: &Node, other: &Node) -> bool {
    match (&one.usb, &other.usb) {
        (Some(one), Some(other)) => (&one.model, &one.serial) == (&other.model, &other.serial),
        _ => false,
    }
}

fn port(node: &Node) -> Option<&str> {
    node.usb.as_ref().map(|usb| usb.port.as_str())
}

fn in_order(nodes: Vec<&Node>) -> Vec<Node> {
    let mut nodes: Vec<Node> = nodes.into_iter().cloned().collect();
    nodes.sort_by(|a, b| a.order.cmp(&b.order));
    nodes
}

fn absent(wanted: &str, all: &[Node]) -> String {
    format!("no camera of that name, serial or port ({wanted}) is plugged in; {}", there_is(all))
}

/// What is there instead, one of each camera.
fn there_is(all: &[Node]) -> String {
    let firsts = all.iter().enumerate().filter(|(i, node)| node.usb.is_none() || all[..*i].iter().all(|other| port(other) != port(node)));
    let told: Vec<_> = firsts.map(|(_, node)| node.told()).collect();
    if told.is_empty() { "this machine has no video device at all".into() } else { format!("there is: {}", told.join("; ")) }
}

fn ambiguous(what: &str, nodes: &[&Node]) -> Lost {
    let told: Vec<_> = in_order(nodes.to_vec()).iter().filter(|node| node.order.1 == 0).map(Node::told).collect();
    let ports: Vec<_> = nodes.iter().filter_map(|node| port(node)).collect();
    let example = ports.first().copied().unwrap_or("1-1.2");
    Lost::Ambiguous(format!("{what} fits more than one camera: {}; name the port instead, such as v4l2:{example}", told.join("; ")))
}

fn node(name: &str, entry: &Path, places: &Places, links: &[(PathBuf, PathBuf)]) -> Option<Node> {
    let number = name.strip_prefix("video")?.parse().ok()?;
    let device = entry.canonicalize().ok()?;
    let read = |file: &Path| fs::read_to_string(file).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    // The USB device is the nearest directory above that has a vendor's number; its interface lies between.
    let usb = device.ancestors().find(|dir| dir.join("idVendor").exists());
    let interface = usb.and_then(|usb| device.strip_prefix(usb).ok()?.iter().next()).unwrap_or_default();
    let usb = usb.and_then(|dir| {
        let model = format!("{}:{}", read(&dir.join("idVendor"))?, read(&dir.join("idProduct")).unwrap_or_default());
        Some(Usb { port: dir.file_name()?.to_str()?.to_owned(), serial: read(&dir.join("serial")), model })
    });
    let path = places.dev.join(name);
    let target = path.canonicalize().unwrap_or_else(|_| path.clone());
    let index = read(&device.join("index")).and_then(|index| index.parse().ok()).unwrap_or_default();
    Some(Node {
        name: read(&device.join("name")).unwrap_or_else(|| name.to_owned()),
        usb,
        links: links.iter().filter(|(_, at)| *at == target).map(|(link, _)| link.clone()).collect(),
        order: (interface.to_string_lossy().into_owned(), index, number),
        path,
    })
}

fn links(dev: &Path) -> Vec<(PathBuf, PathBuf)> {
    let dirs = [dev.join("v4l/by-id"), dev.join("v4l/by-path")];
    let entries = dirs.into_iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let mut found: Vec<_> = entries.filter_map(|e| Some((e.path(), e.path().canonicalize().ok()?))).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A machine whose cameras are plugged and pulled, with the kernel's tree and udev's links.
    struct Machine {
        root: PathBuf,
        places: Places,
    }
    impl Machine {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("shutterd-find-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            let places = Places { dev: root.join("dev"), sys: root.join("sys") };
            for dir in ["dev/v4l/by-id", "dev/v4l/by-path", "sys/class/video4linux"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            Self { root, places }
        }
        /// Pictures come from index 0 under `number`; `number + 1` is its metadata node.
        fn plug(&self, port: &str, serial: Option<&str>, number: u32) {
            let usb = self.root.join("sys/devices/pci0/usb1").join(port);
            for (index, number) in [(0, number), (1, number + 1)] {
                let (name, dir) = (format!("video{number}"), usb.join(format!("{port}:1.0/video4linux/video{number}")));
                fs::create_dir_all(&dir).unwrap();
                for (file, text) in [("name", "Test Camera\n".to_owned()), ("index", format!("{index}\n"))] {
                    fs::write(dir.join(file), text).unwrap();
                }
                symlink(&dir, self.places.sys.join("class/video4linux").join(&name)).unwrap();
                fs::write(self.places.dev.join(&name), "").unwrap();
                let serial = serial.map_or(String::new(), |serial| format!("_{serial}"));
                for link in
                    [format!("by-id/usb-Maker_Cam{serial}-video-index{index}"), format!("by-path/pci-usb-0:{port}:1.0-video-index{index}")]
                {
                    let link = self.places.dev.join("v4l").join(link);
                    let _ = fs::remove_file(&link);
                    symlink(format!("../../{name}"), link).unwrap();
                }
            }
            for (file, text) in [("idVendor", "1d6b"), ("idProduct", "0102"), ("serial", serial.unwrap_or(""))] {
                fs::write(usb.join(file), format!("{text}\n")).unwrap();
            }
        }
        fn pull(&self, port: &str) {
            let usb = self.root.join("sys/devices/pci0/usb1").join(port);
            for name in fs::read_dir(usb.join(format!("{port}:1.0/video4linux"))).unwrap().map(|e| e.unwrap().file_name()) {
                fs::remove_file(self.places.dev.join(&name)).unwrap();
                fs::remove_file(self.places.sys.join("class/video4linux").join(&name)).unwrap();
            }
            fs::remove_dir_all(usb).unwrap();
            for dir in ["by-id", "by-path"] {
                let dir = self.places.dev.join("v4l").join(dir);
                fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|l| !l.exists()).for_each(|l| fs::remove_file(l).unwrap());
            }
        }
        /// Number and port of what is found first.
        fn found(&self, wanted: &str) -> (String, String) {
            let node = find(wanted, &self.places).unwrap_or_else(|e| panic!("{wanted}: {e:?}")).remove(0);
            (node.path.file_name().unwrap().to_str().unwrap().into(), node.usb.unwrap().port)
        }
        fn lost(&self, wanted: &str) -> Lost {
            find(wanted, &self.places).expect_err(wanted)
        }
    }
    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }

    #[test]
    fn a_camera_is_found_by_each_of_its_names_the_picture_node_first() {
        let machine = Machine::new("names");
        machine.plug("1-1.2", Some("A1"), 4);
        let found = ("video4".to_owned(), "1-1.2".to_owned());
        let node = machine.places.dev.join("video4");
        let by_udev_rule = machine.places.dev.join("cam-gate");
        symlink("video4", &by_udev_rule).unwrap();
        for wanted in [
            "A1",
            "1-1.2",
            "usb-Maker_Cam_A1",
            "usb-Maker_Cam_A1-video-index0",
            "pci-usb-0:1-1.2:1.0",
            node.to_str().unwrap(),
            by_udev_rule.to_str().unwrap(),
        ] {
            assert_eq!(machine.found(wanted), found, "{wanted}");
        }
        assert_eq!(machine.found("usb-Maker_Cam_A1-video-index1").0, "video5", "what is named outright is taken");
        assert_eq!(find("A1", &machine.places).unwrap().len(), 2);
    }

    #[test]
    fn two_cameras_replugged_crosswise_never_swap() {
        let machine = Machine::new("cross");
        machine.plug("1-1", Some("A"), 0);
        machine.plug("1-2", Some("B"), 2);
        assert_eq!((machine.found("A").0, machine.found("B").0), ("video0".into(), "video2".into()));
        // The control: a camera remembered by its number would be the other one from here on.
        machine.pull("1-1");
        machine.pull("1-2");
        machine.plug("1-1", Some("B"), 0);
        machine.plug("1-2", Some("A"), 2);
        let node0 = machine.places.dev.join("video0");
        assert_eq!(machine.found(node0.to_str().unwrap()), machine.found("B"), "the number now leads to the other camera");
        for names in [["A", "B"], ["usb-Maker_Cam_A", "usb-Maker_Cam_B"]] {
            assert_eq!((machine.found(names[0]).0, machine.found(names[1]).0), ("video2".into(), "video0".into()), "{names:?}");
        }
        assert_eq!(machine.found("1-1").0, "video0", "a port is a place, whatever is plugged there");
    }

    #[test]
    fn cameras_that_cannot_be_told_apart_by_a_name_are_refused_and_their_ports_named() {
        for serial in [None, Some("SAME")] {
            let machine = Machine::new("twins");
            machine.plug("1-1", serial, 0);
            machine.plug("1-4.1", serial, 2);
            let by_id = format!("usb-Maker_Cam{}", serial.map_or(String::new(), |s| format!("_{s}")));
            for wanted in [Some(by_id.as_str()), serial].into_iter().flatten() {
                let Lost::Ambiguous(said) = machine.lost(wanted) else { panic!("{wanted}") };
                assert!(said.contains("port 1-1,") && said.contains("port 1-4.1,") && said.contains("v4l2:1-1"), "{said}");
                assert!(said.contains("/video0)") && !said.contains("/video1)"), "picture nodes only: {said}");
            }
            assert_eq!((machine.found("1-1").0, machine.found("1-4.1").0), ("video0".into(), "video2".into()));
        }
    }

    #[test]
    fn who_is_not_there_is_absent_and_what_is_there_is_said() {
        let machine = Machine::new("absent");
        assert_eq!(
            machine.lost("A"),
            Lost::Absent("no camera of that name, serial or port (A) is plugged in; this machine has no video device at all".into())
        );
        machine.plug("1-1", Some("B"), 0);
        let Lost::Absent(said) = machine.lost("A") else { panic!() };
        assert!(said.contains("there is: Test Camera (serial B, port 1-1, "), "{said}");
        assert_eq!(said.matches("Test Camera").count(), 1, "a camera is told once, not each of its nodes: {said}");
        assert!(matches!(machine.lost("/nowhere/video0"), Lost::Absent(said) if said.contains("there is no /nowhere/video0")));
        machine.pull("1-1");
        machine.plug("1-1", Some("A"), 7);
        assert_eq!(machine.found("A").0, "video7", "back under another number");
    }

    #[test]
    fn odd_names_beside_the_nodes_are_left_alone() {
        let machine = Machine::new("odd");
        machine.plug("1-1", None, 10);
        for name in ["v4l-subdev0", "videox", "radio0"] {
            fs::create_dir(machine.places.sys.join("class/video4linux").join(name)).unwrap();
        }
        let nodes: Vec<_> = all(&machine.places).into_iter().map(|node| node.order.2).collect();
        assert_eq!(nodes, [10, 11]);
        assert!(all(&Places { dev: "/nowhere".into(), sys: "/nowhere".into() }).is_empty());
    }
}
