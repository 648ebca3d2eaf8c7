// SPDX-License-Identifier: MPL-2.0
//! The IDX format of bytes, plain or gzipped.
//!
//! Big-endian: two zero bytes, the type (8 for unsigned bytes), the number of dimensions; an extent of four bytes for
//! each dimension; then the bytes, row-major. A header may lie: memory grows with what is actually read, never by what
//! the header promises.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

const UNSIGNED_BYTES: u8 = 8;

/// An array of bytes and the file that it came from.
#[derive(Debug)]
pub(super) struct Idx<const DIMENSIONS: usize> {
    pub(super) path: PathBuf,
    pub(super) shape: [usize; DIMENSIONS],
    pub(super) bytes: Vec<u8>,
}

/// Reads `name`, or `name.gz`, from `directory`. Whether the file is compressed is seen by its first bytes.
pub(super) fn read<const DIMENSIONS: usize>(directory: &Path, name: &str) -> Result<Idx<DIMENSIONS>> {
    let zipped = format!("{name}.gz");
    for name in [name, &zipped] {
        let path = directory.join(name);
        match File::open(&path) {
            Ok(file) => return parse(file, path),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::system(format!("opening {}", path.display()), error)),
        }
    }
    Err(Error::invalid(format!("{} has neither {name} nor {zipped}", directory.display())))
}

fn parse<const DIMENSIONS: usize>(file: File, path: PathBuf) -> Result<Idx<DIMENSIONS>> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => Error::invalid(format!("{} ends too early: it is truncated", path.display())),
        ErrorKind::InvalidInput | ErrorKind::InvalidData => {
            Error::invalid(format!("{} is not one whole gzip stream: {error}", path.display()))
        }
        _ => Error::system(format!("reading {}", path.display()), error),
    };
    let mut file = BufReader::new(file);
    let zipped = std::io::BufRead::fill_buf(&mut file).map_err(failed)?.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };

    let mut magic = [0; 4];
    reader.read_exact(&mut magic).map_err(failed)?;
    let right = [0, 0, UNSIGNED_BYTES, DIMENSIONS as u8];
    if magic != right {
        let sentence = format!(
            "{} begins with {magic:?}; an IDX file of bytes in {DIMENSIONS} dimensions begins with {right:?}",
            path.display()
        );
        return Err(Error::invalid(sentence));
    }
    let mut shape = [0; DIMENSIONS];
    for extent in &mut shape {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).map_err(failed)?;
        *extent = u32::from_be_bytes(bytes) as usize;
    }
    let promised = elements(&shape).ok_or_else(|| {
        Error::invalid(format!("{} promises {shape:?} bytes, more than can be: its header is wrong", path.display()))
    })?;
    let mut bytes = Vec::new();
    // One byte more than promised, so that trailing bytes show.
    reader.take((promised as u64).saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() {
        len if len == promised => Ok(Idx { path, shape, bytes }),
        len if len < promised => {
            let sentence = format!(
                "{} is truncated: its header promises {shape:?} bytes, {promised} in all; {len} follow",
                path.display()
            );
            Err(Error::invalid(sentence))
        }
        _ => Err(Error::invalid(format!("{} has bytes after the {shape:?} that its header promises", path.display()))),
    }
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))
}
