// SPDX-License-Identifier: MPL-2.0
//! Plans: what a call means, worked out once for each kind of call and kept.
//!
//! A plan holds the descriptor and its hash, the layout, the fold that this machine runs fastest, and this rank's
//! loaded programs, each made when it is first needed: whether peers' buffers can be addressed is known only after the
//! entry. A call that was made before finds its plan and allocates nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::descriptor::Descriptor;
use super::loaded::{Loaded, Target};
use crate::element::{DataType, ReduceOp};
use crate::error::{Error, Result};
use crate::reduce::Fold;
use crate::schedule::select::{self, Request};
use crate::schedule::{Access, Collective, Entry, Layout, Schedule, Verified};
use crate::transport::page::DESCRIPTOR;
use crate::transport::{Limits, REGION, Transport};

// What a table may let ride along is what a record holds.
const _: () = assert!(crate::schedule::table::MOST_INLINE == crate::transport::page::INLINE);

// What costs are predicted of is how ranks enter.
const _: () = assert!(crate::schedule::cost::GROUP == crate::transport::groups::GROUP);

/// Plans that are kept before unused ones are dropped.
const KEPT: usize = 512;

/// Plans that are found without hashing.
const RECENT: usize = 4;

/// One kind of call of one rank.
pub(crate) struct Plan {
    pub descriptor: Descriptor,
    pub words: [u64; DESCRIPTOR],
    pub hash: u64,
    pub layout: Layout,
    pub fold: Option<Fold>,
    /// Bytes by nccl-tests' definition.
    pub bytes: usize,
    /// The program whose contributions ride in the entry records, if they are small enough.
    pub inline: Option<Arc<Loaded>>,
    /// Whether they do whatever the memory; else where all ranks' buffers are out of the others' reach.
    pub always_inline: bool,
    /// How many rode along in the call after this one, when this was made last: programs repeat themselves.
    pub followed_by: usize,
    /// A user's own program: its memory's name for peers, and what it may access.
    pub own: Option<OwnProgram>,
    /// What runs with each kind of access.
    programs: [Option<Arc<Loaded>>; 3],
    rank: usize,
}

/// Which of a plan's programs a call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// The one whose contributions ride in the entry records.
    Inline,
    /// The user's own.
    Own,
    /// That for buffers with which all ranks can do this.
    With(Access),
}

/// A user's own schedule, ready to run.
pub(crate) struct OwnProgram {
    pub loaded: Arc<Loaded>,
    /// The region that it has for itself, as the transport names it.
    pub region: u64,
}

impl Plan {
    fn new(descriptor: Descriptor, layout: Layout, transport: &dyn Transport) -> Result<Self> {
        let rank = transport.rank();
        let size = descriptor.data_type.size();
        let elements = match descriptor.collective.has_parts() {
            true => layout.total(),
            false => layout.count(rank),
        };
        let bytes = elements.checked_mul(size).filter(|bytes| *bytes <= isize::MAX as usize).ok_or_else(|| {
            Error::invalid(format!("{elements} elements of {size} bytes are more than an address holds"))
        })?;
        Ok(Plan {
            words: descriptor.words(),
            hash: descriptor.hash(),
            fold: descriptor.op.map(|op| Fold::new(descriptor.data_type, op, layout.world())).transpose()?,
            bytes,
            inline: None,
            always_inline: false,
            followed_by: 0,
            own: None,
            programs: [const { None }; 3],
            rank,
            descriptor,
            layout,
        })
    }

    /// What is asked of the selection, once it is known that contributions ride along or that they do not.
    fn request(&self, access: Access, limits: Limits) -> Request<'_> {
        let Descriptor { collective, data_type, op, algorithm, .. } = self.descriptor;
        request(collective, data_type, op, &self.layout, access, algorithm, limits)
    }

    fn load(&self, schedule: &dyn Schedule) -> Result<Arc<Loaded>> {
        let parts = (schedule.access(), schedule.entry());
        let (resources, program) = (schedule.resources(&self.layout), schedule.program(self.rank, &self.layout));
        Loaded::new(schedule.name(), parts, resources, program, &self.target(), REGION).map(Arc::new)
    }

    fn target(&self) -> Target<'_> {
        Target {
            rank: self.rank,
            collective: self.descriptor.collective,
            layout: &self.layout,
            data_type: self.descriptor.data_type,
            op: self.descriptor.op,
            operator: self.descriptor.operator,
        }
    }

    /// The program for buffers with which all ranks can do this.
    pub fn program(&mut self, access: Access) -> Result<Chosen> {
        if self.own.is_some() {
            return Ok(Chosen::Own);
        }
        if self.programs[access as usize].is_none() {
            let loaded = self.load(&*select::choose(&self.request(access, Limits { always: 0, inline: 0 }))?)?;
            self.programs[access as usize] = Some(loaded);
        }
        Ok(Chosen::With(access))
    }

    /// A program that was chosen.
    #[inline]
    pub fn chosen(&self, chosen: Chosen) -> Option<&Arc<Loaded>> {
        match chosen {
            Chosen::Inline => self.inline.as_ref(),
            Chosen::Own => self.own.as_ref().map(|own| &own.loaded),
            Chosen::With(access) => self.programs[access as usize].as_ref(),
        }
    }
}

/// What is asked of the selection, with this crate's sizes of records and regions.
pub(super) fn request(
    collective: Collective,
    data_type: DataType,
    op: Option<ReduceOp>,
    layout: &Layout,
    access: Access,
    algorithm: u32,
    limits: Limits,
) -> Request<'_> {
    Request {
        collective,
        layout,
        element: data_type.size(),
        accumulator: op.map_or(data_type, |op| data_type.accumulator(op)).size(),
        access,
        always: limits.always,
        inline: limits.inline,
        region: REGION,
        algorithm,
    }
}

/// All plans of one rank's communicator.
#[derive(Default)]
pub(crate) struct Plans {
    plans: Vec<Plan>,
    places: HashMap<Descriptor, usize>,
    /// The plans that were used last, to be compared without hashing: programs repeat a few calls.
    recent: [usize; RECENT],
    oldest: usize,
}

impl Plans {
    /// The plan for a built-in collective.
    pub fn find(
        &mut self,
        descriptor: &Descriptor,
        varying: Option<&Layout>,
        transport: &dyn Transport,
        idle: bool,
    ) -> Result<usize> {
        // A descriptor has only the hash of counts that vary.
        let is_it = |plan: &Plan| varying.is_none_or(|layout| plan.layout == *layout);
        if let Some(place) = self.known(descriptor).filter(|place| is_it(&self.plans[*place])) {
            return Ok(place);
        }
        let Descriptor { count, root, in_place, .. } = *descriptor;
        let uniform = || Layout::uniform(transport.world(), count).with_root(root).in_place(in_place);
        let layout = varying.cloned().unwrap_or_else(uniform);
        // The programs that a call may need after its entry are tried before it, so that what cannot be loaded is this
        // rank's error alone and posts nothing.
        let mut plan = Plan::new(*descriptor, layout, transport)?;
        let private = if transport.reads() { Access::Read } else { Access::Staged };
        let schedule = select::choose(&plan.request(private, transport.limits()))?;
        if let Some(operator) = descriptor.operator.filter(|operator| operator.is_ordered)
            && !schedule.fold_order().keeps_ranks_in_order(transport.world())
        {
            return Err(Error::invalid(format!(
                "the operator {:?} is ordered, and the algorithm {} does not fold in the order of the ranks; use another \
                 algorithm, or an operator that is commutative",
                operator.name(),
                schedule.name()
            )));
        }
        if schedule.entry() == Entry::Carries {
            plan.inline = Some(plan.load(&*schedule)?);
            let within_reach = select::choose(&plan.request(Access::Direct, transport.limits()))?;
            plan.always_inline = within_reach.entry() == Entry::Carries;
        }
        if !plan.always_inline {
            plan.program(Access::Direct)?;
            plan.program(Access::Staged)?;
            plan.program(private)?;
        }
        Ok(self.keep(plan, idle))
    }

    /// The place of a plan that exists.
    fn known(&mut self, descriptor: &Descriptor) -> Option<usize> {
        let is_it = |place: &usize| self.plans.get(*place).is_some_and(|plan| plan.descriptor == *descriptor);
        if let Some(place) = self.recent.iter().copied().find(is_it) {
            return Some(place);
        }
        let place = *self.places.get(descriptor)?;
        self.note(place);
        Some(place)
    }

    fn note(&mut self, place: usize) {
        self.recent[self.oldest] = place;
        self.oldest = (self.oldest + 1) % RECENT;
    }

    /// The plan for a user's own schedule. Its memory is allocated here, once.
    pub fn find_verified(
        &mut self,
        descriptor: &Descriptor,
        verified: &Verified,
        transport: &dyn Transport,
        idle: bool,
    ) -> Result<usize> {
        if verified.entry() != Entry::Barrier {
            return Err(Error::invalid(format!(
                "the schedule {} carries its own entry, which only built-in schedules may; use Entry::Barrier",
                verified.name()
            )));
        }
        if let Some(place) = self.known(descriptor) {
            return Ok(place);
        }
        let mut plan = Plan::new(*descriptor, verified.layout().clone(), transport)?;
        let parts = (verified.access(), Entry::Barrier);
        let program = verified.program(transport.rank()).clone();
        let loaded = Loaded::new(verified.name(), parts, verified.resources(), program, &plan.target(), usize::MAX)?;
        // Peers may look at it after this rank has finished with it, so it is the transport's to give back.
        let data = transport.allocate_lasting(loaded.region)?;
        let region = transport.name(data.as_ptr(), loaded.region);
        plan.own = Some(OwnProgram { loaded: Arc::new(loaded), region });
        Ok(self.keep(plan, idle))
    }

    fn keep(&mut self, plan: Plan, idle: bool) -> usize {
        if self.plans.len() >= KEPT && idle {
            // Users' own programs stay, since their memory does.
            self.plans.retain(|plan| plan.own.is_some());
            self.places = self.plans.iter().enumerate().map(|(place, plan)| (plan.descriptor, place)).collect();
        }
        let place = self.plans.len();
        self.places.insert(plan.descriptor, place);
        self.plans.push(plan);
        self.note(place);
        place
    }

    pub fn get(&self, place: usize) -> &Plan {
        &self.plans[place]
    }

    pub fn get_mut(&mut self, place: usize) -> &mut Plan {
        &mut self.plans[place]
    }

    /// After a call of the plan in `place` came one that carried so many bytes.
    pub fn note_next(&mut self, place: usize, carried: usize) {
        // It may have been dropped since, and another be there: then a guess is wrong.
        if let Some(plan) = self.plans.get_mut(place) {
            plan.followed_by = carried;
        }
    }
}
