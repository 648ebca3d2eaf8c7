// SPDX-License-Identifier: MPL-2.0
//! What was measured of one size in one mode.

use super::{Memory, Subject};
use crate::element::{DataType, ReduceOp};
use crate::schedule::Collective;

/// A size of a collective, measured. Times are in microseconds, of the slowest rank in each call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Measurement {
    /// What was called.
    pub subject: Subject,
    /// The algorithm that was asked for; `auto` where none was.
    pub asked: String,
    /// The algorithm that ran.
    pub algorithm: String,
    /// How it ran: `schedule`; on devices also `kernel`.
    pub path: String,
    /// The number of ranks.
    pub ranks: usize,
    /// How they reach each other: `threads` or `processes`.
    pub transport: String,
    /// The kind of the devices in whose memory the buffers lay, as `simulated`; `None`: host memory.
    pub device: Option<String>,
    /// The memory of the buffers.
    pub memory: Memory,
    /// Whether input and output were one buffer.
    pub in_place: bool,
    /// The element type.
    pub data_type: DataType,
    /// The operation, of collectives that fold.
    pub op: Option<ReduceOp>,
    /// The root, of collectives that have one.
    pub root: Option<usize>,
    /// Elements a rank, by NCCL's definition.
    pub count: usize,
    /// Bytes, by nccl-tests' definition.
    pub bytes: usize,
    /// Timed calls.
    pub iterations: usize,
    /// The median time.
    pub time_us: f64,
    /// The shortest.
    pub min_us: f64,
    /// The time that one call in a hundred exceeds.
    pub p99_us: f64,
    /// Elements of outputs that were not what they should have been, on all ranks and in all calls that were checked.
    pub wrong: u64,
}

impl Measurement {
    /// Bytes over time, in GB/s (10^9 bytes).
    pub fn algbw(&self) -> f64 {
        if self.time_us > 0.0 { self.bytes as f64 / self.time_us / 1e3 } else { 0.0 }
    }

    /// The bandwidth of the busiest link, in GB/s: [`Measurement::algbw`] times what of the bytes must cross it, which
    /// makes collectives and numbers of ranks comparable.
    pub fn busbw(&self) -> f64 {
        let n = self.ranks as f64;
        self.algbw()
            * match self.subject {
                Subject::Collective(Collective::AllReduce) => 2.0 * (n - 1.0) / n,
                subject if subject.has_parts() => (n - 1.0) / n,
                _ => 1.0,
            }
    }

    /// What must be said of figures of such devices, if anything: a simulated one executes kernels on the CPU.
    pub fn caveat(device: Option<&str>) -> Option<&'static str> {
        (device == Some("simulated")).then_some("simulated devices: kernels executed on the CPU; no GPU figure")
    }

    /// The measurement as one JSON object, in which `collective` is what was called. `device`, `op` and `root` are null
    /// where that has none.
    #[cfg(feature = "cli")]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "collective": self.subject.name(),
            "asked": self.asked,
            "algorithm": self.algorithm,
            "path": self.path,
            "ranks": self.ranks,
            "transport": self.transport,
            "device": self.device,
            "caveat": Self::caveat(self.device.as_deref()),
            "memory": self.memory.name(),
            "in_place": self.in_place,
            "dtype": self.data_type.name(),
            "op": self.op.map(ReduceOp::name),
            "root": self.root,
            "count": self.count,
            "bytes": self.bytes,
            "iterations": self.iterations,
            "time_us": self.time_us,
            "min_us": self.min_us,
            "p99_us": self.p99_us,
            "algbw": self.algbw(),
            "busbw": self.busbw(),
            "wrong": self.wrong,
        })
    }

    /// The measurement that [`Measurement::json`] made this object of, or `None` if it is none. Bandwidths follow from
    /// the rest. Objects from before `asked` was in them say what ran.
    #[cfg(feature = "cli")]
    pub fn from_json(line: &serde_json::Value) -> Option<Self> {
        let text = |field: &str| line.get(field)?.as_str();
        let number = |field: &str| line.get(field)?.as_u64()?.try_into().ok();
        let time = |field: &str| line.get(field)?.as_f64().filter(|time| *time >= 0.0);
        let measurement = Measurement {
            subject: Subject::from_name(text("collective")?)?,
            asked: text("asked").or(text("algorithm"))?.to_owned(),
            algorithm: text("algorithm")?.to_owned(),
            path: text("path")?.to_owned(),
            ranks: number("ranks").filter(|ranks| *ranks > 0)?,
            transport: text("transport")?.to_owned(),
            device: text("device").map(str::to_owned),
            memory: Memory::ALL.into_iter().find(|memory| Some(memory.name()) == text("memory"))?,
            in_place: line.get("in_place")?.as_bool()?,
            data_type: DataType::from_name(text("dtype")?)?,
            op: match line.get("op")? {
                serde_json::Value::Null => None,
                op => Some(ReduceOp::from_name(op.as_str()?)?),
            },
            root: match line.get("root")? {
                serde_json::Value::Null => None,
                _ => Some(number("root")?),
            },
            count: number("count")?,
            bytes: number("bytes")?,
            iterations: number("iterations")?,
            time_us: time("time_us")?,
            min_us: time("min_us")?,
            p99_us: time("p99_us")?,
            wrong: line.get("wrong")?.as_u64()?,
        };
        measurement.busbw().is_finite().then_some(measurement)
    }
}

#[cfg(test)]
pub(super) fn example() -> Measurement {
    Measurement {
        subject: Collective::AllReduce.into(),
        asked: "auto".into(),
        algorithm: "direct".into(),
        path: "schedule".into(),
        ranks: 4,
        transport: "threads".into(),
        device: None,
        memory: Memory::Plain,
        in_place: false,
        data_type: DataType::F32,
        op: Some(ReduceOp::Sum),
        root: None,
        count: 250_000,
        bytes: 1_000_000,
        iterations: 20,
        time_us: 100.0,
        min_us: 90.0,
        p99_us: 300.0,
        wrong: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_are_those_of_nccl_tests() {
        let busbw =
            |collective: Collective, ranks| Measurement { subject: collective.into(), ranks, ..example() }.busbw();
        assert_eq!(example().algbw(), 10.0);
        assert_eq!(busbw(Collective::AllReduce, 4), 15.0);
        assert_eq!(busbw(Collective::AllReduce, 1), 0.0);
        assert_eq!(busbw(Collective::ReduceScatter, 4), 7.5);
        assert_eq!(busbw(Collective::AllGather, 2), 5.0);
        assert_eq!(busbw(Collective::Broadcast, 4), 10.0);
    }

    #[cfg(feature = "cli")]
    #[test]
    fn json_is_read_as_it_was_written() {
        let broadcast = Measurement { subject: Collective::Broadcast.into(), op: None, root: Some(3), ..example() };
        let messages = Measurement { subject: Subject::SendRecv, op: None, ..example() };
        for measurement in [example(), broadcast, messages] {
            assert_eq!(Measurement::from_json(&measurement.json()), Some(measurement));
        }
        let mut older = example().json();
        older.as_object_mut().unwrap().remove("asked");
        assert_eq!(Measurement::from_json(&older).unwrap().asked, "direct");
        for (field, wrong) in [
            ("collective", "dance".into()),
            ("ranks", 0.into()),
            ("bytes", (-8).into()),
            ("bytes", 8.5.into()),
            ("time_us", "fast".into()),
            ("time_us", (-1).into()),
            ("time_us", 5e-324.into()),
            ("op", 1.into()),
            ("root", "none".into()),
            ("wrong", serde_json::Value::Null),
        ] {
            let mut line = example().json();
            line[field] = wrong;
            assert_eq!(Measurement::from_json(&line), None, "{line}");
        }
        assert_eq!(Measurement::from_json(&7.into()), None);
    }
}
