// SPDX-License-Identifier: MPL-2.0
//! What can be read in PTX: the kernels of a source file. `build.rs` reads it too, since AMD's code is of the same sources
//! and does not say as plainly what is in it.

/// The kernels of a text: their names, and the bytes of their one argument, where it is a struct.
pub(crate) fn entries(text: &str) -> impl Iterator<Item = (&str, Option<usize>)> {
    text.split(".entry ").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once('(')?;
        let (parameters, _) = rest.split_once(')')?;
        let bytes = parameters.trim().strip_suffix(']').and_then(|one| one.rsplit_once('[')?.1.parse().ok());
        Some((name.trim(), bytes.filter(|_| parameters.matches(".param").count() == 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read() {
        let text = ".visible .entry one(\n\t.param .align 8 .b8 one_param_0[288]\n)\n{ }\n\
                    .visible .entry two(\n\t.param .u32 two_param_0,\n\t.param .align 4 .b8 two_param_1[4]\n)\n";
        assert_eq!(entries(text).collect::<Vec<_>>(), [("one", Some(288)), ("two", None)]);
    }
}
