// SPDX-License-Identifier: MPL-2.0
//! Data sets, the sampler's properties, and malformed files.
#![cfg(feature = "train")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use annulus::data::{Dataset, Order, Sampler, digits, mnist};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

#[test]
fn digits_are_whole() {
    let split = digits::load(Order::Shuffled(0)).unwrap();
    assert_eq!((split.train.len(), split.test.len()), (1438, 359));
    assert_eq!((split.train.width(), split.train.classes()), (64, 10));
    let all = split.train.features().iter().chain(split.test.features());
    assert!(all.clone().all(|pixel| (-1.0..=1.0).contains(pixel)));
    assert!(all.clone().any(|&pixel| pixel == -1.0) && all.clone().any(|&pixel| pixel == 1.0));
    // As the source counts them.
    let mut counts = [0; 10];
    split.train.labels().iter().chain(split.test.labels()).for_each(|&label| counts[label as usize] += 1);
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);

    assert_eq!(split, digits::load(Order::Shuffled(0)).unwrap());
    assert_ne!(split, digits::load(Order::Shuffled(1)).unwrap());
    let file = digits::load(Order::File).unwrap();
    assert_eq!(file.train.labels()[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(file.train.features()[2..6], [-0.375, 0.625, 0.125, -0.875]);
    // A shuffled split has the same samples.
    let sorted = |split: &annulus::data::Split| {
        let rows = |data: &Dataset| data.features().chunks(64).map(|row| format!("{row:?}")).collect::<Vec<_>>();
        let mut all = [rows(&split.train), rows(&split.test)].concat();
        all.sort_unstable();
        all
    };
    assert_eq!(sorted(&split), sorted(&file));
}

#[test]
fn batches_are_gathered() {
    let data = Dataset::new((0..6).map(|i| i as f32).collect(), 2, vec![0, 1, 0], 2).unwrap();
    let batch = data.batch(&[2, 0]).unwrap();
    assert_eq!((batch.inputs.to_vec().unwrap(), batch.labels), (vec![4., 5., 0., 1.], vec![0, 0]));
    assert_eq!(data.batch(&[]).unwrap().inputs.shape(), [0, 2]);
    assert!(data.batch(&[3]).unwrap_err().to_string().contains("sample 3 does not exist; the data set has 3"));
    assert!(Dataset::new(vec![0.0; 5], 2, vec![0, 1], 2).unwrap_err().to_string().contains("made of 5 values"));
    assert!(Dataset::new(vec![0.0; 4], 2, vec![0, 2], 2).unwrap_err().to_string().contains("sample 1 is 2"));
}

#[test]
fn the_samplers_example() {
    let epoch = Sampler::new(10, 2, 3, Order::File).unwrap().epoch(0);
    let shares: Vec<&[usize]> = (0..3).flat_map(|step| [epoch.share(step, 0), epoch.share(step, 1)]).collect();
    assert_eq!(shares, [&[0, 1, 2][..], &[3, 4, 5], &[6, 7], &[8, 9], &[], &[]]);
    assert_eq!((epoch.steps(), epoch.denominator(0), epoch.denominator(1)), (2, 3.0, 2.0));
    // Seven samples for three ranks: the last step has one, and two empty shares.
    let epoch = Sampler::new(7, 3, 2, Order::File).unwrap().epoch(0);
    assert_eq!((epoch.share(1, 0), epoch.share(1, 1), epoch.share(1, 2)), (&[6][..], &[][..], &[][..]));
    assert_eq!(epoch.denominator(1), (1.0f64 / 3.0) as f32);
}

#[test]
fn wrong_samplers_are_sentences() {
    for ((samples, ranks, batch), expected) in [
        ((10, 0, 1), "0 ranks"),
        ((10, 2, 0), "a batch of 0"),
        ((0, 2, 1), "0 samples"),
        ((10, 3, 5), "a batch of 5 is larger than the shard: 10 samples make shards of at most 4"),
    ] {
        let said = Sampler::new(samples, ranks, batch, Order::File).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Disjoint and complete; contiguous and even, longer shares first; as many steps on every rank.
    #[test]
    fn epochs_are_dealt(
        samples in 1usize..300, ranks in 1usize..9, batch in 1usize..40, seed: u64, number in 0u64..4, shuffle: bool,
    ) {
        let order = if shuffle { Order::Shuffled(seed) } else { Order::File };
        let batch = batch.min(samples.div_ceil(ranks));
        let sampler = Sampler::new(samples, ranks, batch, order).unwrap();
        let epoch = sampler.epoch(number);
        prop_assert_eq!(epoch.steps(), sampler.steps());
        let mut taken = Vec::new();
        for step in 0..epoch.steps() {
            let shares: Vec<&[usize]> = (0..ranks).map(|rank| epoch.share(step, rank)).collect();
            let of_places = (0..ranks).map(|rank| &epoch.samples()[epoch.places(step, rank)]);
            assert!(of_places.eq(shares.iter().copied()));
            prop_assert_eq!(shares.concat(), epoch.batch(step));
            let lengths: Vec<usize> = shares.iter().map(|share| share.len()).collect();
            prop_assert!(lengths.is_sorted_by(|a, b| a >= b) && lengths[0] - lengths[ranks - 1] <= 1);
            prop_assert!(lengths[0] >= 1 && lengths[0] <= batch);
            if step + 1 < epoch.steps() {
                prop_assert!(lengths.iter().all(|&length| length == batch));
            }
            taken.extend(shares.concat());
        }
        prop_assert!(epoch.batch(epoch.steps()).is_empty());
        if !shuffle {
            prop_assert!(taken.is_sorted());
        }
        taken.sort_unstable();
        prop_assert_eq!(taken, (0..samples).collect::<Vec<_>>());
        prop_assert_eq!(sampler.epoch(number), epoch);
    }
}

#[test]
fn epochs_differ() {
    let sampler = Sampler::new(100, 2, 10, Order::Shuffled(5)).unwrap();
    let epochs: Vec<_> = (0..3).map(|number| sampler.epoch(number)).collect();
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2] && epochs[0] != epochs[2]);
    assert_ne!(epochs[0], Sampler::new(100, 2, 10, Order::Shuffled(6)).unwrap().epoch(0));
}

/// A directory with the four files of a tiny MNIST: three images to learn from and two to test, of 2 x 2 pixels.
struct Files(PathBuf);

const NAMES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

impl Files {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("annulus-data-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        let files = Files(path);
        files.write(0, &idx(&[3, 2, 2], &[0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110]));
        files.write(1, &idx(&[3], &[7, 0, 9]));
        files.write(2, &idx(&[2, 2, 2], &[255, 0, 0, 0, 0, 0, 0, 255]));
        files.write(3, &idx(&[2], &[1, 2]));
        files
    }

    fn write(&self, file: usize, bytes: &[u8]) {
        fs::write(self.0.join(NAMES[file]), bytes).unwrap();
    }

    fn zip(&self, file: usize) {
        let plain = self.0.join(NAMES[file]);
        fs::write(self.0.join(format!("{}.gz", NAMES[file])), zipped(&fs::read(&plain).unwrap())).unwrap();
        fs::remove_file(plain).unwrap();
    }

    fn error(&self) -> String {
        mnist::load(&self.0).unwrap_err().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn idx(shape: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, shape.len() as u8];
    shape.iter().for_each(|extent| file.extend(extent.to_be_bytes()));
    file.extend(bytes);
    file
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn mnist_plain_and_zipped() {
    let files = Files::new("whole");
    let plain = mnist::load(&files.0).unwrap();
    assert_eq!((plain.train.len(), plain.test.len(), plain.train.width(), plain.train.classes()), (3, 2, 4, 10));
    assert_eq!((plain.train.labels(), plain.test.labels()), (&[7, 0, 9][..], &[1, 2][..]));
    // Mean 55 and variance 100 x (12^2 - 1) / 12 of the training pixels, for both sets.
    let deviation = (100.0f64 * 143.0 / 12.0).sqrt();
    let standard = |pixel: f64| ((pixel - 55.0) / deviation) as f32;
    assert_eq!(plain.train.features()[..3], [standard(0.0), standard(10.0), standard(20.0)]);
    assert_eq!(plain.test.features()[..2], [standard(255.0), standard(0.0)]);
    (0..4).for_each(|file| files.zip(file));
    assert_eq!(mnist::load(&files.0).unwrap(), plain);
}

#[test]
fn malformed_files_are_sentences() {
    let images = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110];
    let whole = idx(&[3, 2, 2], &images);
    let cases: [(usize, Vec<u8>, &str); 13] = [
        (0, vec![], "train-images-idx3-ubyte ends too early"),
        (0, whole[..9].to_vec(), "train-images-idx3-ubyte ends too early"),
        (0, whole[..20].to_vec(), "is truncated: its header promises [3, 2, 2] bytes, 12 in all; 4 follow"),
        (0, [whole.clone(), vec![0]].concat(), "has bytes after the [3, 2, 2]"),
        (
            0,
            idx(&[12], &images),
            "begins with [0, 0, 8, 1]; an IDX file of bytes in 3 dimensions begins with [0, 0, 8, 3]",
        ),
        (0, b"<html>not found</html>".to_vec(), "begins with [60, 104, 116, 109]"),
        (0, idx(&[u32::MAX, u32::MAX, u32::MAX], &images), "its header is wrong"),
        (0, idx(&[u32::MAX, 28, 28], &images), "12 follow"),
        (0, idx(&[3, 0, 2], &[]), "there must be some"),
        (1, idx(&[2], &[7, 0]), "has 3 images, but"),
        (1, idx(&[3], &[7, 0, 10]), "train-labels-idx1-ubyte: label 2 is 10; labels are from 0 to 9"),
        (2, idx(&[2, 1, 4], &[0; 8]), "images of [1, 4] pixels"),
        (3, whole.clone(), "t10k-labels-idx1-ubyte begins with [0, 0, 8, 3]"),
    ];
    let directory = "malformed";
    for (file, bytes, expected) in cases {
        let files = Files::new(directory);
        files.write(file, &bytes);
        let said = files.error();
        assert!(said.contains(expected), "{said}");
        // Zipped, the same file has the same fault.
        files.zip(file);
        let said = files.error();
        assert!(said.contains(&expected.replace("ubyte", "ubyte.gz")), "{said}");
    }
}

#[test]
fn broken_gzip_is_a_sentence() {
    let files = Files::new("gzip");
    let whole = zipped(&idx(&[3, 2, 2], &[9; 12]));
    for end in [2, 11, 20, whole.len() - 4] {
        files.write(0, &whole[..end]);
        assert!(files.error().contains("ends too early: it is truncated"), "{end}: {}", files.error());
    }
    let mut corrupt = whole.clone();
    *corrupt.last_mut().unwrap() ^= 1;
    files.write(0, &corrupt);
    assert!(files.error().contains("is not one whole gzip stream"), "{}", files.error());
    files.write(0, &[whole, b"something that is no gzip stream".to_vec()].concat());
    assert!(files.error().contains("is not one whole gzip stream"), "{}", files.error());
}

#[test]
fn missing_files_are_sentences() {
    let said = mnist::load(Path::new("/nonexistent/mnist")).unwrap_err().to_string();
    assert!(said.contains("/nonexistent/mnist is not a directory with train-images-idx3-ubyte"), "{said}");
    let files = Files::new("missing");
    fs::remove_file(files.0.join(NAMES[3])).unwrap();
    let said = files.error();
    assert!(said.contains("has neither t10k-labels-idx1-ubyte nor t10k-labels-idx1-ubyte.gz"), "{said}");
}
