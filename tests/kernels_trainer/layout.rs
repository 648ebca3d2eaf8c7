// SPDX-License-Identifier: MPL-2.0
//! The arguments in Rust and in C++, field by field; and the launch shapes.

use annulus::kernel::training::{
    Activate, AdamW, AdamWBegin, AdamWStep, ColumnSum, CrossEntropy, FindOverflow, Pick, Product, Scaling, Sgd,
    UpdateScale,
};
use annulus::kernel::{Kernel, Shape};
use annulus::{DataType, kernel};

use crate::compiler;

const UNITS: [&str; 8] = ["activate", "adamw", "column_sum", "cross_entropy", "loss_scale", "pick", "product", "sgd"];

/// What Rust says, as assertions for the C++ compiler.
fn assertions() -> String {
    let mut text: String = UNITS.map(|unit| format!("#include \"kernels/{unit}.cu\"\n")).concat();
    text += "#include <cstddef>\n";
    macro_rules! fields {
        ($($struct:ident { $($field:ident)* })*) => {$(
            let name = stringify!($struct);
            text += &format!("static_assert(sizeof({name}) == {}, \"{name}\");\n", size_of::<$struct>());
            $({
                let zero: $struct = bytemuck::Zeroable::zeroed();
                let (offset, size) = (std::mem::offset_of!($struct, $field), size_of_val(&zero.$field));
                let name = concat!(stringify!($struct), ", ", stringify!($field));
                text += &format!(
                    "static_assert(offsetof({name}) == {offset} && sizeof({}) == {size}, \"{name}\");\n",
                    name.replace(", ", "::"),
                );
            })*
        )*};
    }
    fields! {
        Pick { inputs labels order to to_labels rows bytes }
        Product {
            left right to rows columns inner left_row left_column right_row right_column accumulate small
        }
        Activate { from bias to elements columns activation unused }
        CrossEntropy { logits labels losses scaling to rows classes denominator unused }
        ColumnSum { from output to rows columns accumulate unused }
        Scaling { scale overflow steps skipped }
        FindOverflow { from scaling elements }
        UpdateScale { scaling interval unused }
        Sgd { weights velocities gradients copy scaling elements rate momentum copy_type unused }
        AdamWStep { beta1_power beta2_power pace root }
        AdamWBegin { step scaling rate beta1 beta2 unused }
        AdamW {
            weights moments squares gradients copy step scaling elements beta1 beta2 first second keep epsilon copy_type
            unused
        }
    }
    let values = [
        ("NO_ACTIVATION", kernel::training::NO_ACTIVATION),
        ("RECTIFIER", kernel::training::RECTIFIER),
        ("NO_COPY", kernel::training::NO_COPY),
        ("COPY_F16", kernel::training::COPY_F16),
        ("COPY_BF16", kernel::training::COPY_BF16),
    ];
    text + &values.map(|(name, value)| format!("static_assert({name} == {value}, \"{name}\");\n")).concat()
}

#[test]
fn arguments_are_laid_out_alike() {
    let Some(compiler) = compiler::compiler() else { return };
    let include = format!("-I{}", compiler::root().display());
    let flags = ["-std=c++17", "-ffp-contract=off", "-Wno-unknown-pragmas", "-fsyntax-only", "-xc++", &include];
    let text = assertions();
    let headers = compiler::files(&["kernels", "kernels/host"], &["cu", "h"]);
    let arguments: Vec<&str> = flags.iter().copied().chain([text.as_str()]).collect();
    compiler::once("kernels-trainer-layout", &arguments, &headers, |folder| {
        let source = folder.join("layout.cpp");
        std::fs::write(&source, &text).unwrap();
        compiler::compile(&compiler, &flags, &[source], &folder.join("nothing"));
    });
}

#[test]
fn shapes_fit_the_work() {
    let shape = |blocks, threads| Shape { blocks, threads };
    for (rows, columns, blocks) in [(0, 5, 1), (1, 1, 1), (64, 64, 1), (65, 64, 2), (65, 65, 4), (640, 640, 8)] {
        assert_eq!(Shape::of_product(rows, columns, 4), (shape(blocks.min(4), 64), rows == 0));
    }
    assert_eq!(Shape::of_product(u64::MAX, u64::MAX, 1000), (shape(1000, 64), false));
    // Few large tiles for so much room; as many as fill a quarter of it.
    assert_eq!(Shape::of_product(512, 512, 1000), (shape(256, 64), true));
    assert_eq!(Shape::of_product(512, 512, 256), (shape(64, 64), false));
    assert_eq!(Shape::of_product(33, 10, 1000), (shape(2, 64), true));
    for (count, blocks) in [(0, 1), (1, 1), (64, 1), (65, 2), (1 << 40, 8)] {
        assert_eq!(Shape::of_each(count, 8), shape(blocks, 64));
    }
    for (columns, blocks) in [(0, 1), (1, 1), (16, 1), (17, 2), (1 << 40, 8)] {
        assert_eq!(Shape::of_columns(columns, 8), shape(blocks, 256));
    }
    for (rows, blocks) in [(0, 1), (1, 1), (7, 7), (1 << 40, 8)] {
        assert_eq!(Shape::of_rows(rows, 8), shape(blocks, 64));
    }
    assert_eq!(Shape::of(Kernel::UpdateScale, 1 << 30, 8), shape(1, 1));
    assert_eq!(Shape::of(Kernel::Sgd(DataType::F32), 3 << 14, 8), shape(3, 256));
    assert_eq!(Shape::of(Kernel::Activate(DataType::F16), 1 << 30, 80), shape(80, 256));
    assert!(!Kernel::AdamWBegin.is_collective() && Kernel::Broadcast.is_collective());
}
