// SPDX-License-Identifier: MPL-2.0
//! What Linux says of AMD's cards, in files that anybody may read: `/sys/bus/pci` and the `hwmon` of a card (clock,
//! temperature, power), and the topology of the compute driver `amdkfd` (architecture, links, processes). A card is named by
//! its place on the PCI bus, as HIP says it.
//!
//! By "Linux GPU Driver Developer's Guide, amdgpu" and the headers of ROCm's thunk (`hsakmttypes.h`). What a kernel does not
//! have, or has under another name, is not known.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Process, Way};

/// `HSA_IOLINKTYPE_XGMI`.
const XGMI: u32 = 11;

/// The files, below a root that is `/` but in tests.
pub(super) struct Files {
    root: PathBuf,
}

/// A card's node in the topology.
struct Node {
    folder: PathBuf,
    properties: String,
}

impl Files {
    pub fn new(root: impl Into<PathBuf>) -> Files {
        Files { root: root.into() }
    }

    fn of_bus(&self, bus: &str) -> PathBuf {
        self.root.join("sys/bus/pci/devices").join(bus.to_ascii_lowercase())
    }

    /// A file of the card's sensors, as a number: there is one folder of them.
    fn sensor(&self, bus: &str, names: &[&str]) -> Option<u64> {
        let folder = entries(&self.of_bus(bus).join("hwmon")).next()?;
        names.iter().find_map(|name| number(&folder.join(name)))
    }

    /// The clock of the compute units now, in MHz.
    pub fn clock(&self, bus: &str) -> Option<u32> {
        u32::try_from(self.sensor(bus, &["freq1_input"])? / 1_000_000).ok()
    }

    /// Degrees Celsius, of the edge of the chip, or where the card has that alone, of its hottest place.
    pub fn temperature(&self, bus: &str) -> Option<u32> {
        u32::try_from(self.sensor(bus, &["temp1_input", "temp2_input"])? / 1000).ok()
    }

    /// Watts.
    pub fn power(&self, bus: &str) -> Option<f64> {
        Some(self.sensor(bus, &["power1_average", "power1_input"])? as f64 / 1e6)
    }

    fn node(&self, bus: &str) -> Option<Node> {
        let nodes = entries(&self.root.join("sys/class/kfd/kfd/topology/nodes"));
        let mut nodes = nodes.filter_map(|folder| {
            let properties = fs::read_to_string(folder.join("properties")).ok()?;
            Some(Node { folder, properties })
        });
        nodes.find(|node| node.bus().is_some_and(|own| own.eq_ignore_ascii_case(bus)))
    }

    /// What its code is compiled for: `gfx90a`.
    pub fn architecture(&self, bus: &str) -> Option<String> {
        let version: u32 = self.node(bus)?.property("gfx_target_version")?;
        (version > 0).then(|| format!("gfx{}{:x}{:x}", version / 10_000, version / 100 % 100, version % 100))
    }

    /// The processes that have memory of the card.
    pub fn processes(&self, bus: &str) -> Option<Vec<Process>> {
        let card: u64 = number(&self.node(bus)?.folder.join("gpu_id"))?;
        let file = format!("vram_{card}");
        let process = |folder: PathBuf| {
            let id = folder.file_name()?.to_str()?.parse().ok()?;
            let memory = number(&folder.join(&file)).filter(|bytes| *bytes > 0)?;
            let name = fs::read_to_string(self.root.join(format!("proc/{id}/comm"))).ok();
            Some(Process { id, name: name.map(|name| name.trim_end().to_owned()), memory: Some(memory) })
        };
        let folder = self.root.join("sys/class/kfd/kfd/proc");
        let mut all: Vec<Process> = folder.is_dir().then(|| entries(&folder).filter_map(process).collect())?;
        all.sort_by_key(|process| process.id);
        Some(all)
    }

    /// What is between two cards.
    pub fn way(&self, from: &str, to: &str) -> Way {
        match self.is_linked(from, to) {
            Some(true) => Way::Xgmi,
            _ => self.way_of_bus(from, to).unwrap_or(Way::Unknown),
        }
    }

    fn is_linked(&self, from: &str, to: &str) -> Option<bool> {
        let (from, to) = (self.node(from)?, self.node(to)?);
        let to: u32 = to.folder.file_name()?.to_str()?.parse().ok()?;
        let links = ["io_links", "p2p_links"].into_iter().flat_map(|kind| entries(&from.folder.join(kind)));
        let mut links = links.filter_map(|link| fs::read_to_string(link.join("properties")).ok());
        Some(links.any(|link| property(&link, "node_to") == Some(to) && property(&link, "type") == Some(XGMI)))
    }

    /// By the bridges above each: a folder holds what is behind it.
    fn way_of_bus(&self, from: &str, to: &str) -> Option<Way> {
        let path = |bus| fs::canonicalize(self.of_bus(bus)).ok();
        let (from_path, to_path) = (path(from)?, path(to)?);
        let is_host_bridge = |part: &Path| part.to_string_lossy().starts_with("pci");
        let of = |path: &Path| -> Vec<PathBuf> {
            let parts = path.iter().map(PathBuf::from);
            parts.skip_while(|part| !is_host_bridge(part) || part.as_os_str() == "pci").collect()
        };
        let (from_parts, to_parts) = (of(&from_path), of(&to_path));
        let shared = from_parts.iter().zip(&to_parts).take_while(|(one, other)| one == other).count();
        let node = |bus| fs::read_to_string(self.of_bus(bus).join("numa_node")).ok();
        Some(match shared {
            0 if node(from)? == node(to)? => Way::Node,
            0 => Way::System,
            1 => Way::HostBridge,
            // Nothing but the port of one switch is between the card and what they share.
            _ if from_parts.len().max(to_parts.len()) <= shared + 2 => Way::Switch,
            _ => Way::Switches,
        })
    }
}

impl Node {
    fn property<T: FromStr>(&self, name: &str) -> Option<T> {
        property(&self.properties, name)
    }

    /// Where it is on the PCI bus; nowhere, for a processor.
    fn bus(&self) -> Option<String> {
        let at: u32 = self.property("location_id").filter(|at| *at != 0)?;
        let domain: u32 = self.property("domain").unwrap_or(0);
        Some(format!("{domain:04x}:{:02x}:{:02x}.{:x}", at >> 8 & 0xff, at >> 3 & 0x1f, at & 7))
    }
}

/// The value on the line that begins with the name.
fn property<T: FromStr>(properties: &str, name: &str) -> Option<T> {
    let mut values = properties.lines().filter_map(|line| line.split_once(' '));
    values.find(|(own, _)| *own == name)?.1.trim().parse().ok()
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// What is in a folder; nothing, where it cannot be read.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Files as a machine with four cards has them: two behind one switch and linked, one behind another bridge of the same
    /// host, one at another host.
    fn machine(name: &str) -> Files {
        let root = std::env::temp_dir().join(format!("sysfs-{name}-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let places = [
            "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0/0000:03:00.0",
            "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:01.0/0000:04:00.0",
            "pci0000:00/0000:00:02.0/0000:c3:00.0",
            "pci0000:80/0000:80:01.0/0000:83:00.0",
        ];
        for (card, place) in places.iter().enumerate() {
            let (bus, node) = (place.rsplit('/').next().unwrap(), card + 1);
            write(&format!("sys/devices/{place}/numa_node"), if card == 3 { "1\n" } else { "0\n" });
            let hwmon = format!("sys/devices/{place}/hwmon/hwmon{card}");
            write(&format!("{hwmon}/temp1_input"), "41000\n");
            write(&format!("{hwmon}/freq1_input"), "1700000000\n");
            write(&format!("{hwmon}/{}", ["power1_average", "power1_input"][card % 2]), "93500000\n");
            fs::create_dir_all(root.join("sys/bus/pci/devices")).unwrap();
            symlink(root.join("sys/devices").join(place), root.join("sys/bus/pci/devices").join(bus)).unwrap();
            let folder = format!("sys/class/kfd/kfd/topology/nodes/{node}");
            let at = u32::from_str_radix(&bus[5..7], 16).unwrap() << 8;
            let version = [90_010, 90_402, 100_300, 110_001][card];
            write(
                &format!("{folder}/properties"),
                &format!("simd_count 440\ngfx_target_version {version}\nlocation_id {at}\ndomain 0\n"),
            );
            write(&format!("{folder}/gpu_id"), &format!("{}\n", 100 + card));
            let [other, kind] = if card < 2 { [2 - card, 11] } else { [0, 2] };
            write(
                &format!("{folder}/io_links/0/properties"),
                &format!("type {kind}\nnode_from {node}\nnode_to {other}\n"),
            );
        }
        write("sys/class/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 64\nlocation_id 0\n");
        write("sys/class/kfd/kfd/proc/77/vram_101", "4096\n");
        write("sys/class/kfd/kfd/proc/77/vram_102", "0\n");
        write("proc/77/comm", "trainer\n");
        Files::new(root)
    }

    #[test]
    fn cards_are_described() {
        let files = machine("described");
        let cards = ["0000:03:00.0", "0000:04:00.0", "0000:C3:00.0", "0000:83:00.0"];
        assert_eq!(
            cards.map(|bus| files.architecture(bus).unwrap()),
            ["gfx90a", "gfx942", "gfx1030", "gfx1101"].map(String::from)
        );
        for bus in cards {
            assert_eq!((files.clock(bus), files.temperature(bus)), (Some(1700), Some(41)));
            assert_eq!(files.power(bus), Some(93.5));
        }
        let users = cards.map(|bus| files.processes(bus).unwrap());
        assert_eq!(users.each_ref().map(Vec::len), [0, 1, 0, 0]);
        let only = &users[1][0];
        assert_eq!((only.id, only.name.as_deref(), only.memory), (77, Some("trainer"), Some(4096)));
        let ways = [(0, 1), (1, 0), (0, 2), (2, 3)].map(|(from, to)| files.way(cards[from], cards[to]));
        assert_eq!(ways, [Way::Xgmi, Way::Xgmi, Way::HostBridge, Way::System]);
        assert_eq!(files.way_of_bus(cards[0], cards[1]), Some(Way::Switch));
        fs::remove_dir_all(files.root).unwrap();
    }

    #[test]
    fn what_is_not_there_is_not_known() {
        let files = Files::new("/there/is/none");
        let bus = "0000:03:00.0";
        assert_eq!((files.clock(bus), files.temperature(bus), files.power(bus)), (None, None, None));
        assert!(files.architecture(bus).is_none() && files.processes(bus).is_none());
        assert_eq!(files.way(bus, "0000:04:00.0"), Way::Unknown);
    }
}
