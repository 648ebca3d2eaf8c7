// SPDX-License-Identifier: MPL-2.0
//! The embedded code of the library's kernels, and what can be read in it.
//!
//! Code is PTX, which each driver compiles for its card. `build.rs` takes what is checked in (`kernels/ptx`), or has it
//! compiled anew where `ANNULUS_BUILD_PTX=1` asks for that. Of most units there is one text, for sm_75, since for newer
//! targets the compiler writes the same (`kernels/compile` checks it).

/// The code of one source file for one target.
pub(crate) struct Unit {
    pub name: &'static str,
    /// The oldest compute capability that it is for: 90 is 9.0.
    pub target: u32,
    pub text: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/ptx.rs"));

/// All code of a unit, for each target.
pub(crate) fn of(unit: &str) -> impl Iterator<Item = &'static Unit> {
    UNITS.iter().filter(move |code| code.name == unit)
}

/// Of each unit the code for the newest target that a card of this compute capability runs; `None` if one has none.
pub(crate) fn chosen(capability: u32) -> Option<Vec<&'static Unit>> {
    let mut chosen: Vec<&Unit> = Vec::new();
    for unit in UNITS {
        match chosen.iter_mut().find(|other| other.name == unit.name) {
            Some(other) => {
                let better = (unit.target <= capability, unit.target) > (other.target <= capability, other.target);
                if better && unit.target <= capability {
                    *other = unit;
                }
            }
            None => chosen.push(unit),
        }
    }
    chosen.iter().all(|unit| unit.target <= capability).then_some(chosen)
}

/// The oldest compute capability that has code of every unit.
pub(crate) fn oldest() -> u32 {
    let oldest = |name| UNITS.iter().filter(|unit| unit.name == name).map(|unit| unit.target).min();
    UNITS.iter().filter_map(|unit| oldest(unit.name)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_gets_the_newest_code_that_it_runs() {
        let names: std::collections::BTreeSet<&str> = UNITS.iter().map(|unit| unit.name).collect();
        for (capability, probe) in [(75, 75), (79, 75), (86, 80), (90, 90), (120, 90)] {
            let chosen = chosen(capability).unwrap();
            assert_eq!(chosen.iter().map(|unit| unit.name).collect::<std::collections::BTreeSet<_>>(), names);
            assert_eq!(chosen.len(), names.len());
            assert_eq!(chosen.iter().find(|unit| unit.name == "probe").unwrap().target, probe);
        }
        assert!(chosen(70).is_none());
        assert_eq!(oldest(), 75);
    }

    /// The host's compiler and NVIDIA's lay out the same structs.
    #[cfg(annulus_simulated)]
    #[test]
    fn arguments_are_as_long_as_on_the_host() {
        let mut count = 0;
        for (name, bytes) in UNITS.iter().flat_map(|unit| super::super::super::gpu::entries(unit.text)) {
            let on_the_host = super::super::super::host::argument_bytes(name);
            assert!(bytes.is_some() && bytes == on_the_host, "{name}: {bytes:?}, on the host {on_the_host:?}");
            count += 1;
        }
        assert!(count > 80);
    }
}
