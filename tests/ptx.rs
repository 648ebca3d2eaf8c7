// SPDX-License-Identifier: MPL-2.0
//! The executor of PTX that other tests rest on: what each instruction computes, by values worked by hand from the PTX
//! ISA; that every text that is checked in can be executed; that a launch which a card would end is ended. That the
//! kernels' PTX has the right bits is said by `kernels_bits.rs` and, over the stand-in for the driver, by the tests on
//! devices.

#![allow(unsafe_code)]

mod compiler;
#[path = "ptx/mod.rs"]
mod executor;

use std::ffi::{CString, c_char, c_int};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The library, for one test at a time, since texts replace one another; or none where there is no C++ compiler.
fn library() -> Option<MutexGuard<'static, libloading::Library>> {
    static LIBRARY: OnceLock<Option<Mutex<libloading::Library>>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let path = executor::library()?;
        // SAFETY: the library has no initialisers of consequence. It is never unloaded.
        Some(Mutex::new(unsafe { libloading::Library::new(path).expect("the library loads") }))
    });
    Some(library.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Eight words that a kernel gets, and eight that it leaves.
#[repr(C, align(64))]
#[derive(Clone, Default)]
struct Words {
    given: [u64; 8],
    left: [u64; 8],
}

/// A kernel with these statements, where `%rd1` has the address of what it is given and `%rd2` of what it leaves.
fn kernel(statements: &str) -> String {
    let statements: String = statements.lines().map(|line| format!("\t{}\n", line.trim())).collect();
    format!(
        "//\n.version 8.0\n.target sm_75\n.address_size 64\n\n.visible .entry tried(\n\t.param .u64 tried_param_0\n)\n\
         .maxntid 512, 1, 1\n{{\n\t.shared .align 16 .b8 x[64];\n\n\tld.param.u64 \t%rd1, [tried_param_0];\n\
         \tadd.s64 \t%rd2, %rd1, 64;\n{statements}\tret;\n\n}}\n"
    )
}

/// Runs the statements with these words by one thread; what they leave, or how the launch ended (library.cpp).
fn run(statements: &str, given: [u64; 8]) -> Option<Result<[u64; 8], c_int>> {
    type Launch = unsafe extern "C" fn(*const c_char, *const u8, usize, u32, u32, u64, u64) -> c_int;
    let library = library()?;
    executor::read(&library, &kernel(statements)).unwrap();
    let words = Words { given, ..Words::default() };
    let begin = &raw const words as u64;
    let name = CString::new("tried").unwrap();
    // SAFETY: the function has this type (library.cpp); the argument is the kernel's, which may touch the words alone.
    let ended = unsafe {
        let launch = library.get::<Launch>(b"annulus_launch_within").unwrap();
        launch(name.as_ptr(), (&raw const begin).cast(), 8, 1, 1, begin, begin + size_of::<Words>() as u64)
    };
    // The words are written behind the compiler's back.
    let words = std::hint::black_box(words);
    Some(if ended == 0 { Ok(words.left) } else { Err(ended) })
}

/// What one instruction makes of up to four operands of a type, of which the first is `%rd` or as `class` says.
fn computed(instruction: &str, operands: &[u64]) -> Option<u64> {
    let mut statements = String::new();
    for place in 0..operands.len() {
        statements += &format!("ld.global.u64 \t%rd{}, [%rd1+{}];\n", 10 + place, 8 * place);
    }
    let sources: Vec<String> = (0..operands.len()).map(|place| format!("%rd{}", 10 + place)).collect();
    statements += &format!("{instruction} \t%rd20, {};\nst.global.u64 \t[%rd2], %rd20;", sources.join(", "));
    let mut given = [0; 8];
    given[..operands.len()].copy_from_slice(operands);
    Some(run(&statements, given)?.unwrap()[0])
}

const NAN: u64 = 0x7fff_ffff;

fn f(value: f32) -> u64 {
    u64::from(value.to_bits())
}

fn d(value: f64) -> u64 {
    value.to_bits()
}

#[test]
fn instructions_compute_what_the_isa_says() {
    if library().is_none() {
        return;
    }
    let minus = |value: i64| value as u64;
    for (instruction, operands, expected) in [
        // Integers wrap, at their own width.
        ("add.s32", vec![0xffff_ffff, 2], 1),
        ("add.s64", vec![u64::MAX, 2], 1),
        ("sub.s16", vec![0, 1], 0xffff),
        ("mul.lo.s32", vec![0x8000_0001, 3], 0x8000_0003),
        ("mul.wide.u32", vec![0xffff_ffff, 0xffff_ffff], 0xffff_fffe_0000_0001),
        ("mul.wide.s32", vec![0xffff_ffff, 2], minus(-2)),
        ("mad.lo.s32", vec![3, 5, 0xffff_ffff], 14),
        ("div.s64", vec![minus(-7), 2], minus(-3)),
        ("div.s64", vec![i64::MIN as u64, minus(-1)], i64::MIN as u64),
        ("div.u32", vec![7, 2], 3),
        ("rem.u64", vec![7, 4], 3),
        ("min.s32", vec![0xffff_ffff, 1], 0xffff_ffff),
        ("min.u32", vec![0xffff_ffff, 1], 1),
        ("max.s64", vec![minus(-1), 1], 1),
        ("neg.s32", vec![1], 0xffff_ffff),
        ("not.b16", vec![1], 0xfffe),
        // Shifts by more than the width leave nothing, or the sign; processors take the distance modulo the width.
        ("shl.b32", vec![1, 31], 0x8000_0000),
        ("shl.b32", vec![1, 32], 0),
        ("shl.b64", vec![1, 63], 1 << 63),
        ("shr.u64", vec![1 << 63, 64], 0),
        ("shr.u16", vec![0x8000, 15], 1),
        ("shr.s32", vec![0x8000_0000, 40], 0xffff_ffff),
        // Bits and bytes.
        ("bfi.b32", vec![0xab, 0xffff_ffff, 8, 8], 0xffff_abff),
        ("bfi.b64", vec![0x1234, 0, 60, 16], 0x4000_0000_0000_0000),
        ("prmt.b32", vec![0x4433_2211, 0x8877_6655, 0x5410], 0x6655_2211),
        ("prmt.b32", vec![0x4433_2211, 0x8877_66d5, 0x0f4c], 0x11ff_d5ff),
        // Floats round once; what is computed of NaN is one NaN, and subnormal numbers are kept.
        ("add.rn.f32", vec![f(1.0), f(f32::EPSILON / 2.0)], f(1.0)),
        ("add.rn.f32", vec![f(1.0), f(f32::NAN) | 1], NAN),
        ("sub.rn.f32", vec![f(f32::INFINITY), f(f32::INFINITY)], NAN),
        ("mul.rn.f32", vec![f(1e-30), f(1e-10)], f(1e-30 * 1e-10)),
        ("div.rn.f32", vec![f(1.0), f(3.0)], f(1.0 / 3.0)),
        ("sqrt.rn.f32", vec![f(-1.0)], NAN),
        ("fma.rn.f32", vec![f(1.0 + f32::EPSILON), f(1.0 - f32::EPSILON), f(-1.0)], f(-f32::EPSILON * f32::EPSILON)),
        ("add.rn.f64", vec![d(0.1), d(0.2)], d(0.1 + 0.2)),
        // Conversions.
        ("cvt.s32.s8", vec![0x180], 0xffff_ff80),
        ("cvt.u64.u32", vec![u64::MAX], 0xffff_ffff),
        ("cvt.s64.s16", vec![0x8000], minus(-0x8000)),
        ("cvt.u16.u64", vec![0x1_2345], 0x2345),
        ("cvt.rn.f32.u32", vec![0xffff_ffff], f(4_294_967_296.0)),
        ("cvt.rn.f32.f64", vec![d(1.0 + 1e-9)], f(1.0)),
        ("cvt.f64.f32", vec![f(0.1)], d(f64::from(0.1_f32))),
        ("cvt.rzi.s64.f64", vec![d(-2.9)], minus(-2)),
        ("cvt.rzi.s64.f64", vec![d(1e300)], i64::MAX as u64),
        ("cvt.f32.f16", vec![0x0001], f(5.960_464_5e-8)),
        ("cvt.f32.f16", vec![0xfbff], f(-65504.0)),
        ("cvt.f32.f16", vec![0x7c00], f(f32::INFINITY)),
        ("cvt.rn.f16.f32", vec![f(65519.0)], 0x7bff),
        ("cvt.rn.f16.f32", vec![f(65520.0)], 0x7c00),
        ("cvt.rn.f16.f32", vec![f(1.0 + 1.0 / 2048.0)], 0x3c00),
        ("cvt.rn.f16.f32", vec![f(1.0 + 3.0 / 2048.0)], 0x3c02),
        ("cvt.rn.f16.f32", vec![f(-2.980_232_2e-8)], 0x8000),
        ("cvt.rn.f16.f32", vec![f(2.980_232_6e-8)], 0x0001),
        ("cvt.rn.f16.f32", vec![f(6.103_3e-5)], 0x0400),
        ("cvt.rn.f16.f32", vec![f(f32::NAN)], 0x7fff),
    ] {
        let got = computed(instruction, &operands).unwrap();
        assert_eq!(got, expected, "{instruction} {operands:x?}: {got:#x}, not {expected:#x}");
    }
    for (comparison, operands, holds) in [
        ("lt.s32", [0xffff_ffff, 0], true),
        ("lt.u32", [0xffff_ffff, 0], false),
        ("eq.s16", [0x1_0001, 1], true),
        ("eq.f32", [f(0.0), f(-0.0)], true),
        ("neu.f32", [f(f32::NAN), f(1.0)], true),
        ("geu.f32", [f(f32::NAN), f(1.0)], true),
        ("lt.f32", [f(f32::NAN), f(1.0)], false),
        ("num.f32", [f(f32::NAN), f(1.0)], false),
        ("nan.f64", [d(f64::NAN), d(1.0)], true),
        ("gt.f64", [d(1.0), d(f64::NEG_INFINITY)], true),
    ] {
        let statements = format!(
            "ld.global.v2.u64 \t{{%rd10, %rd11}}, [%rd1];\nsetp.{comparison} \t%p1, %rd10, %rd11;\n\
             selp.b64 \t%rd20, 7, 5, %p1;\nst.global.u64 \t[%rd2], %rd20;"
        );
        let [a, b] = operands;
        let got = run(&statements, [a, b, 0, 0, 0, 0, 0, 0]).unwrap().unwrap()[0];
        assert_eq!(got == 7, holds, "{comparison} {operands:x?}");
    }
}

#[test]
fn memory_and_branches_are_as_written() {
    // A loop that counts to five, through shared memory; halves joined and taken apart; a sign that fills its register.
    let counted = run(
        "mov.u32 \t%r1, 0;
         st.shared.u32 \t[x+4], %r1;

         $L__BB0_1:
         ld.shared.u32 \t%r2, [x+4];
         add.s32 \t%r2, %r2, 1;
         st.shared.u32 \t[x+4], %r2;
         setp.lt.u32 \t%p1, %r2, 5;
         @%p1 bra \t$L__BB0_1;
         bra.uni \t$L__BB0_3;
         mov.u32 \t%r2, 99;

         $L__BB0_3:
         bar.sync \t0;
         st.global.u32 \t[%rd2], %r2;
         ld.global.s8 \t%r3, [%rd1+7];
         st.global.u32 \t[%rd2+4], %r3;
         ld.global.u64 \t%rd3, [%rd1];
         mov.b64 \t{%r4, %r5}, %rd3;
         mov.b64 \t%rd4, {%r5, %r4};
         st.global.u64 \t[%rd2+8], %rd4;
         add.s64 \t%rd5, %rd2, 24;
         atom.acq_rel.sys.global.add.u32 \t%r6, [%rd5+-8], 3;
         atom.acq_rel.sys.global.add.u32 \t%r6, [%rd5+-8], 3;
         st.global.u32 \t[%rd2+20], %r6;
         mov.u32 \t%r7, %ntid.x;
         st.global.v2.u32 \t[%rd2+24], {%r7, %r6};",
        [0xf122_3344_5566_7788, 0, 0, 0, 0, 0, 0, 0],
    );
    let Some(left) = counted else { return };
    assert_eq!(
        left.unwrap()[..4],
        [0xffff_fff1_0000_0005, 0x5566_7788_f122_3344, 0x0000_0003_0000_0006, 0x0000_0003_0000_0001]
    );
}

#[test]
fn what_a_card_would_end_is_ended() {
    const MISALIGNED: c_int = 3;
    const ILLEGAL: c_int = 4;
    for (statement, ended) in [
        ("ld.global.u64 \t%rd3, [%rd1+4];", MISALIGNED),
        ("ld.global.v2.u64 \t{%rd3, %rd4}, [%rd1+8];", MISALIGNED),
        ("st.global.v4.u32 \t[%rd2+4], {%r1, %r2, %r3, %r4};", MISALIGNED),
        ("ld.relaxed.sys.global.v2.u64 \t{%rd3, %rd4}, [%rd1+8];", MISALIGNED),
        ("ld.global.u64 \t%rd3, [%rd1+128];", ILLEGAL),
        ("st.global.u8 \t[%rd1+-1], %r1;", ILLEGAL),
        ("st.release.sys.global.u32 \t[%rd2+64], %r1;", ILLEGAL),
        ("st.shared.u32 \t[x+64], %r1;", ILLEGAL),
    ] {
        let Some(got) = run(statement, [0; 8]) else { return };
        assert_eq!(got, Err(ended), "{statement}");
    }
}

#[test]
fn what_is_not_known_is_refused_with_its_line() {
    let Some(library) = library() else { return };
    for (statement, why) in [
        ("ex2.approx.f32 \t%f1, %f2;", "ex2.approx.f32 is not executed here"),
        ("@%p1 add.s32 \t%r1, %r1, 1;", "guards what is no branch"),
        ("bra \t$L__BB9_9;", "$L__BB9_9, which is nowhere"),
        ("mov.u32 \t%r1, %laneid.x;", "%laneid.x is not known here"),
        ("mov.u64 \t%rd1, nobody;", "nobody is neither a register nor a constant, nor declared"),
        ("ld.global.u32 \t%r1, %rd1;", "%rd1 is no address"),
        ("bar.sync \t1;", "only the first is known here"),
        ("add.s32 \t%r1, %r1, 1", "is not one statement"),
    ] {
        let mistake = executor::read(&library, &kernel(statement)).unwrap_err();
        assert!(mistake.starts_with("tried, line ") && mistake.contains(why), "{statement}: {mistake}");
    }
}

#[test]
fn every_text_that_is_checked_in_is_executed_here() {
    let Some(library) = library() else { return };
    let texts = ["sm_75", "sm_80", "sm_90"].map(executor::checked_in).concat();
    assert!(texts.len() > 20);
    for path in texts {
        let text = std::fs::read_to_string(&path).unwrap();
        executor::read(&library, &text).unwrap_or_else(|mistake| panic!("{}: {mistake}", path.display()));
    }
}
