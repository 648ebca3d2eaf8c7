// SPDX-License-Identifier: MPL-2.0
//! Matrix products by the library of a device's vendor, where there is one.
#![allow(unsafe_code)]

use std::sync::Arc;

use super::allocation::Access;
use super::backend::{self, ProductsId};
use super::buffer::DeviceBuffer;
use super::device::{Core, Device};
use super::stream::Stream;
use crate::element::Element;
use crate::error::{Error, Result};

/// The variable by which a user asks for products by the own kernel: `own`.
const CHOICE: &str = "ANNULUS_PRODUCTS";

/// A vendor's matrix products, of one user: its products follow one another, on whatever stream.
pub(crate) struct Products {
    device: Arc<Core>,
    id: ProductsId,
    name: String,
    workspace: DeviceBuffer<u8>,
}

/// A factor of a product, row-major or transposed.
#[derive(Clone, Copy)]
pub(crate) struct Factor<'a, T: Element> {
    pub elements: &'a DeviceBuffer<T>,
    /// Of the factor as it is multiplied.
    pub rows: usize,
    pub columns: usize,
    /// Whether it lies there column by column.
    pub transposed: bool,
}

impl<T: Element> Factor<'_, T> {
    fn as_addresses(&self) -> backend::Factor {
        let step = if self.transposed { self.rows } else { self.columns };
        backend::Factor { address: self.elements.address(), step: step.max(1), transposed: self.transposed }
    }
}

impl Products {
    /// Those of the device. To be asked for at a time when nothing that runs on it waits for this thread.
    ///
    /// # Errors
    ///
    /// `Unsupported` with the reason why there are none; `System` where memory is exhausted.
    pub fn of(device: &Device) -> Result<Products> {
        match std::env::var(CHOICE).as_deref() {
            Err(std::env::VarError::NotPresent) => {}
            Ok("own") => return Err(Error::unsupported(format!("{CHOICE}=own asks for it"))),
            _ => {
                return Err(Error::invalid(format!(
                    "{CHOICE} may be `own`, for products by the own kernel, or not set"
                )));
            }
        }
        let core = &device.core;
        let backend::Products { id, name, workspace } = core.backend.products().map_err(Error::unsupported)?;
        match device.allocate(workspace) {
            Ok(workspace) => Ok(Products { device: core.clone(), id, name, workspace }),
            Err(error) => {
                core.backend.end_products(id);
                Err(error)
            }
        }
    }

    /// What the library is called, and its version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Enqueues to = left x right, or, if it is to accumulate, to += left x right.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the extents or the lengths of buffers do not fit one another; `System` where the library
    /// refuses.
    pub fn multiply<T: Element>(
        &self,
        [left, right]: [Factor<'_, T>; 2],
        to: &DeviceBuffer<T>,
        accumulate: bool,
        stream: &Stream,
    ) -> Result<()> {
        let (rows, columns, inner) = (left.rows, right.columns, left.columns);
        let fits = |factor: &Factor<'_, T>| factor.rows.checked_mul(factor.columns) == Some(factor.elements.len());
        if !fits(&left) || !fits(&right) || right.rows != inner || rows.checked_mul(columns) != Some(to.len()) {
            return Err(Error::invalid(format!(
                "a product of {rows} x {inner} and {} x {columns} does not fit its {}, {} and {} elements",
                right.rows,
                left.elements.len(),
                right.elements.len(),
                to.len()
            )));
        }
        for buffer in [left.elements, right.elements, to] {
            if !Arc::ptr_eq(&buffer.allocation.core, &self.device) || !Arc::ptr_eq(&stream.core.device, &self.device) {
                return Err(Error::invalid(format!("a product of {} needs its own memory and stream", self.device)));
            }
        }
        match (to.is_empty(), inner, accumulate) {
            (true, _, _) | (_, 0, true) => return Ok(()),
            (_, 0, false) => return stream.fill(to, T::zeroed()),
            _ => {}
        }
        let product = backend::Product {
            left: left.as_addresses(),
            right: right.as_addresses(),
            to: to.address(),
            data_type: T::DATA_TYPE,
            rows,
            columns,
            inner,
            accumulate,
        };
        let usages = vec![
            left.elements.usage(Access::Reads),
            right.elements.usage(Access::Reads),
            to.usage(Access::Updates),
            self.workspace.usage(Access::Updates),
        ];
        let workspace = self.workspace.address();
        stream.enqueue(format_args!("a product by {}", self.name), usages, Vec::new(), |backend, stream| {
            // SAFETY: All memory is of this device, was found to be as long as the product takes it to be, and is kept until
            // it has been done; so is the workspace, which another product uses before or after. The id is this one's.
            unsafe { backend.multiply(self.id, &product, workspace, stream) }
        })
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        self.device.backend.end_products(self.id);
    }
}
