// SPDX-License-Identifier: MPL-2.0
//
// The barrier: every rank has entered before any leaves. It moves nothing; one flag to each rank, one round.
//
// It is also how a call begins that is a program (flags.cu). `elements`: by how much its flags advance; else 0.
//
// Launch: one block, a thread for each rank or more; a warp. Proof: enter() of meet.h is a barrier.
#include "meet.h"

KERNEL(barrier, Collective) {
    SHARED Met met;
    const Turn turn = begin(args, met);
    enter(args, turn, met);
#if defined(PLANTED_STALE_FLAGS)
    if (block() == 0 && thread() == 0) args.state->base = args.elements;
#else
    if (block() == 0 && thread() == 0) args.state->base += args.elements;
#endif
    leave(args, turn, met, 0);
}
