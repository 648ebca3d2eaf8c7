// SPDX-License-Identifier: MPL-2.0
//
// The barrier: every rank has entered before any leaves. It moves nothing; one flag to each rank, one round.
//
// Launch: one block, a thread for each rank or more; a warp. Proof: enter() of meet.h is a barrier.
#include "meet.h"

KERNEL(barrier, Collective) {
    SHARED Met met;
    const Turn turn = begin(args, met);
    enter(args, turn, met, true, true);
    leave(args, turn, met, 0);
}
