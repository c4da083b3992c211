/* The dial protocol: no order of its steps, deaths and lost messages may let a phone ring twice, or lose a call.
 *
 * The model has one interview, one number and two attempts. The second attempt is the automatic retry of the first.
 * There are two dial workers, which get hints of either attempt at any time, a settle worker, callbacks, a client that
 * deletes and moves attempts, and calling hours that end. The carrier refuses calls and loses answers. It lists a call
 * at once, later or never, and sends its callbacks in any order and number, or not at all. Each process may be frozen
 * between two steps. Dial workers and polls are killed, DEATHS times in all.
 *
 * Events follow scheduler/lifecycle/state_machine.py: an inline has the name of the event, and TAKES names the arrow.
 * test_arrows.py compares the two, and lists the arrows that are left out. Instead of an epoch, `as_of` holds the
 * processes that have read the current version of an attempt. Each event empties it, which is equivalent and needs
 * fewer states. Rounds of settle do not overlap here; they do in tests/use_cases/test_settle.py.
 *
 * With two interviews the carrier lists every accepted call, except calls that it never lists. Only those may still be
 * live when the other interview is called.
 *
 * A worker dials one call at a time here. batch.pml has claims, last looks and records of several calls.
 *
 * `make model` runs it; tests/verification/model/__main__.py has the sizes, and the rule that each -DNAME breaks.
 */
#ifndef CLAIMS
#define CLAIMS 3 /* in all; attempts that are pending after them expire */
#endif
#ifndef DEATHS
#define DEATHS 2 /* of dial workers and of polls */
#endif
#ifndef INTERVIEWS
#define INTERVIEWS 1 /* 2: the second attempt is another interview's, to the same number, and due at once */
#endif

mtype:state = { NONE, PENDING, IN_PROGRESS, COMPLETED, FAILED, CANCELLED };
mtype:phase = { NO_PHASE, DIALLING, PLACED, UNKNOWN };
mtype:reason = { NO_REASON, ANSWERED, BUSY, DECLINED, CANCELLED_AT_CARRIER, OUTCOME_UNKNOWN, EXPIRED, CANCELLED_BY_USER };
mtype:post = { NO_POST, UNSENT, LOOKED, ON_ITS_WAY, TAKEN, NEVER_TAKEN, NUMBER_REFUSED };

/* Progress of a call. */
#define NOTHING 0
#define QUEUED 1
#define RINGS 2
#define OVER 3

typedef Attempt {
  mtype:state state = NONE;
  mtype:phase phase = NO_PHASE;
  mtype:reason reason = NO_REASON;
  byte token = 0; /* its last claim */
  byte heard = NOTHING;
  byte as_of = 0; /* processes that have read its current version, a bit each */
  bool looked_for = false; /* an outcome that was given up has a live leg */
  bool listed = false; /* a list requested after the end of the lease was read in full */
  bool hang_up = false;
  bool due = false;
  bool held = false; /* a command for it is accepted but not applied */
  /* Fields for the assertions only. */
  bool was_given_up = false;
  bool is_gone = false; /* after a 204 no phone may ring for it */
  byte rings = 0;
  byte booked = 0
};

typedef Claim {
  byte whose = 0; /* its attempt */
  mtype:post post = NO_POST;
  byte leg = NOTHING;
  bool started = false; /* the carrier has begun to dial */
  mtype:reason how = NO_REASON;
  bool unlisted = false; /* no list ever contains it */
  bool closed = false /* proven never to have been dialled: its news are ignored */
};

Attempt at[3];
Claim cl[CLAIMS + 1];
byte claims = 0, deaths = 0;
bool shut = false;

#define IS_OVER(a) (at[a].state == COMPLETED || at[a].state == FAILED || at[a].state == CANCELLED)
#define IS_LIVE(c) (cl[c].leg == QUEUED || cl[c].leg == RINGS)
#define MAY_DIE :: deaths < DEATHS -> deaths++; goto dead
#define AS_OF(a, who) ((at[a].as_of & (1 << who)) != 0)
#define SETTLE 2

/* ---- events of an attempt */

#define TAKES(a, source, target, why) \
  assert(at[a].state == source); at[a].state = target; at[a].reason = why; at[a].as_of = 0

inline created(a) { TAKES(a, NONE, PENDING, NO_REASON); at[a].due = true }

inline claimed(a, who) {
  TAKES(a, PENDING, IN_PROGRESS, NO_REASON);
  claims++;
  at[a].phase = DIALLING; at[a].token = claims; at[a].listed = false;
  at[a].as_of = 1 << who;
  cl[claims].whose = a; cl[claims].post = UNSENT
}

inline not_called(a) { at[a].phase = NO_PHASE; at[a].heard = NOTHING; at[a].hang_up = false; at[a].due = false }

inline deferred(a) { TAKES(a, IN_PROGRESS, PENDING, NO_REASON); not_called(a) }

inline not_placed(a) { TAKES(a, IN_PROGRESS, PENDING, NO_REASON); not_called(a) }

inline never_dialled(a) { TAKES(a, IN_PROGRESS, PENDING, NO_REASON); not_called(a); cl[at[a].token].closed = true }

inline placed(a) { TAKES(a, IN_PROGRESS, IN_PROGRESS, NO_REASON); at[a].phase = PLACED; at[a].listed = false }

inline answer_lost(a) { TAKES(a, IN_PROGRESS, IN_PROGRESS, NO_REASON); at[a].phase = UNKNOWN }

inline progressed(a, rank) { TAKES(a, IN_PROGRESS, IN_PROGRESS, NO_REASON); at[a].heard = rank }

inline hang_up_wanted(a) { TAKES(a, IN_PROGRESS, IN_PROGRESS, NO_REASON); at[a].hang_up = true }

inline is_known(a, why) {
  at[a].phase = NO_PHASE; at[a].heard = OVER; at[a].hang_up = false; at[a].looked_for = false;
  if :: why == ANSWERED -> at[a].booked++; assert(at[a].booked == 1) :: else -> skip fi
}

inline ended(a, why) {
  if
  :: why == ANSWERED -> TAKES(a, IN_PROGRESS, COMPLETED, ANSWERED)
  :: why == BUSY -> TAKES(a, IN_PROGRESS, FAILED, BUSY)
  :: why == DECLINED -> TAKES(a, IN_PROGRESS, FAILED, DECLINED)
  :: why == CANCELLED_AT_CARRIER -> TAKES(a, IN_PROGRESS, FAILED, CANCELLED_AT_CARRIER)
  fi;
  is_known(a, why);
  if :: why == BUSY && a == 1 -> retried() :: else -> skip fi
}

/* The automatic retry. */
inline retried() {
  assert(!at[1].was_given_up);
#if INTERVIEWS == 1
  created(2)
#endif
}

inline proof_missing(a) {
  if
  :: at[a].state == IN_PROGRESS -> TAKES(a, IN_PROGRESS, FAILED, OUTCOME_UNKNOWN)
  :: else -> assert(at[a].looked_for); TAKES(a, FAILED, FAILED, OUTCOME_UNKNOWN)
  fi;
  at[a].phase = NO_PHASE; at[a].hang_up = false; at[a].looked_for = false; at[a].listed = false;
  at[a].was_given_up = true
}

inline leg_seen(a, rank) {
  TAKES(a, FAILED, FAILED, OUTCOME_UNKNOWN); at[a].heard = rank; at[a].looked_for = true
}

inline proven(a, why) {
  assert(at[a].reason == OUTCOME_UNKNOWN);
  if
  :: why == ANSWERED -> TAKES(a, FAILED, COMPLETED, ANSWERED)
  :: why == BUSY -> TAKES(a, FAILED, FAILED, BUSY)
  :: why == DECLINED -> TAKES(a, FAILED, FAILED, DECLINED)
  :: why == CANCELLED_AT_CARRIER -> TAKES(a, FAILED, FAILED, CANCELLED_AT_CARRIER)
  fi;
  is_known(a, why)
}

inline expired(a) { TAKES(a, PENDING, FAILED, EXPIRED) }

inline cancelled(a) { TAKES(a, PENDING, CANCELLED, CANCELLED_BY_USER); at[a].is_gone = true }

inline rescheduled(a) { TAKES(a, PENDING, PENDING, NO_REASON); at[a].due = false }

/* ---- dial */

#ifdef RECORDS_ANYHOW
#define RECORDS(a) true
#else
#define RECORDS(a) AS_OF(a, _pid)
#endif
#define LINE_IS_FREE(a) (at[3 - a].state != IN_PROGRESS && !at[3 - a].looked_for)
#ifdef A_HINT_IS_A_REASON
#define IS_DUE(a) true
#else
#define IS_DUE(a) at[a].due
#endif
#ifdef CLAIMS_PASS_COMMANDS
#define IS_HELD(a) false
#else
#define IS_HELD(a) at[a].held
#endif
#define CLAIMABLE(a) (at[a].state == PENDING && IS_DUE(a) && !IS_HELD(a) && LINE_IS_FREE(a) && claims < CLAIMS)

/* Hints come at any time, for any attempt: an idle worker may claim. */
#if INTERVIEWS > 1
#define DIALLERS 1
#else
#define DIALLERS 2
#endif
active [DIALLERS] proctype Dialler() {
  byte a = 0, c = 0;
end_idle:
#ifdef CLAIMS_READ_THEN_WRITE
  if :: CLAIMABLE(1) -> a = 1 :: CLAIMABLE(2) -> a = 2 fi;
  atomic {
    if
    :: claims < CLAIMS && (at[a].state == PENDING || at[a].state == IN_PROGRESS) ->
       at[a].state = PENDING; claimed(a, _pid); c = claims
    :: else -> goto dead
    fi
  };
#else
  atomic {
    if :: CLAIMABLE(1) -> a = 1 :: CLAIMABLE(2) -> a = 2 fi;
    claimed(a, _pid); c = claims
  };
#endif
  if
  MAY_DIE
  :: atomic { cl[c].post != UNSENT || !AS_OF(a, _pid) -> goto dead }
#ifdef NO_LAST_LOOK
  :: atomic { cl[c].post == UNSENT -> cl[c].post = LOOKED }
#else
  :: atomic { cl[c].post == UNSENT && AS_OF(a, _pid) && shut -> deferred(a); goto dead }
  :: atomic { cl[c].post == UNSENT && AS_OF(a, _pid) && !shut -> cl[c].post = LOOKED }
#endif
  fi;
  /* The kernel has ended a worker that was frozen past its lease. Its POST is never sent. */
  if
  MAY_DIE
  :: atomic { cl[c].post != LOOKED -> goto dead }
  :: atomic { cl[c].post == LOOKED -> cl[c].post = ON_ITS_WAY }
  fi;
  if
  MAY_DIE
  :: atomic { cl[c].post == TAKEN && RECORDS(a) ->
       placed(a);
       if :: cl[c].leg == QUEUED && shut -> hang_up_wanted(a) :: else -> skip fi
     }
  :: atomic { cl[c].post == NEVER_TAKEN && RECORDS(a) -> not_placed(a) }
  :: atomic { cl[c].post == NUMBER_REFUSED && RECORDS(a) -> ended(a, DECLINED) }
     /* The answer timed out, broke off or was malformed. */
#ifdef SENDS_AGAIN
  :: atomic { RECORDS(a) -> cl[c].post = ON_ITS_WAY; answer_lost(a) }
#else
  :: atomic { RECORDS(a) -> answer_lost(a) }
#endif
  :: atomic { !RECORDS(a) -> skip }
  fi;
dead:
  atomic {
    if :: c != 0 && (cl[c].post == UNSENT || cl[c].post == LOOKED) -> cl[c].post = NO_POST :: else -> skip fi;
    a = 0; c = 0
  };
  goto end_idle
}

/* ---- the carrier: a process per call */

#if INTERVIEWS > 1
#define MAY_BE_ON(c) (cl[c].unlisted && at[cl[c].whose].was_given_up)
#else
#define MAY_BE_ON(c) false
#endif

inline lands(c) {
  if
  :: cl[c].post = NEVER_TAKEN /* and the worker may lose this answer */
  :: cl[c].post = NUMBER_REFUSED
  :: true ->
     cl[c].post = TAKEN;
     /* Only while its own claim is valid, within the hours, and without another live call to that number. */
     assert(at[cl[c].whose].state == IN_PROGRESS && at[cl[c].whose].token == c);
     assert(at[cl[c].whose].due && !at[cl[c].whose].is_gone && !shut);
     other = 1;
     do
     :: other <= CLAIMS -> assert(!IS_LIVE(other) || MAY_BE_ON(other)); other++
     :: else -> other = 0; break
     od;
#if INTERVIEWS > 1
     if :: cl[c].unlisted = true :: cl[c].unlisted = false fi;
#endif
     cl[c].leg = QUEUED
  fi
}

inline goes_to_ring(c) {
  assert(at[cl[c].whose].state != PENDING && at[cl[c].whose].state != CANCELLED && at[cl[c].whose].reason != EXPIRED);
  at[cl[c].whose].rings++;
  assert(at[cl[c].whose].rings == 1);
  cl[c].leg = RINGS; cl[c].started = true
}

active [CLAIMS] proctype Call() {
  byte c, other = 0;
  c = _pid + 1 - DIALLERS;
end_call:
  do
  :: atomic { cl[c].post == ON_ITS_WAY -> lands(c) }
  :: atomic { cl[c].leg == QUEUED -> goes_to_ring(c) }
  :: atomic { cl[c].leg == QUEUED -> cl[c].leg = OVER; cl[c].how = CANCELLED_AT_CARRIER }
  :: atomic {
       cl[c].leg == RINGS -> cl[c].leg = OVER;
       if :: cl[c].how = ANSWERED :: cl[c].how = BUSY :: cl[c].how = DECLINED fi
     }
  od
}

/* ---- callbacks */

inline late_proof(a, c, rank) {
  if
  :: rank == OVER -> proven(a, cl[c].how)
     /* While another call has the line, this is an alarm instead. */
  :: rank != OVER && (!at[a].looked_for || rank > at[a].heard) && LINE_IS_FREE(a) -> leg_seen(a, rank)
  :: else -> skip
  fi
}

/* Only a poll, and no callback, tells whether the call was ever dialled. */
inline our_cancel(a, c, is_asked) {
  if
  :: at[a].heard >= RINGS || (is_asked && cl[c].started) -> ended(a, CANCELLED_AT_CARRIER)
  :: at[a].heard < RINGS && !(is_asked && cl[c].started) ->
     if
#ifdef A_CANCEL_IS_PROOF
     :: true -> never_dialled(a)
#else
     :: is_asked -> never_dialled(a)
     :: !is_asked -> skip
#endif
     fi
  fi
}

inline hear(a, c, rank, is_asked) {
  if
  :: cl[c].closed && (rank < RINGS || cl[c].how == CANCELLED_AT_CARRIER) -> skip
  :: else ->
     assert(at[a].token == c && at[a].state != PENDING); /* otherwise an alarm, which this carrier never causes */
     if
     :: at[a].reason == OUTCOME_UNKNOWN -> late_proof(a, c, rank)
     :: at[a].reason != OUTCOME_UNKNOWN && at[a].state != IN_PROGRESS -> skip
     :: at[a].state == IN_PROGRESS ->
        if
        :: rank == OVER && cl[c].how == CANCELLED_AT_CARRIER && at[a].hang_up -> our_cancel(a, c, is_asked)
        :: else ->
           if :: at[a].phase != PLACED -> placed(a) :: else -> skip fi;
           if
           :: rank == OVER -> ended(a, cl[c].how)
           :: rank != OVER && rank > at[a].heard -> progressed(a, rank)
           :: else -> skip
           fi;
           if :: rank == QUEUED && shut && !at[a].hang_up -> hang_up_wanted(a) :: else -> skip fi
        fi
     fi
  fi
}

/* Any true news of any call, any number of times or never. */
active proctype Hear() {
  byte c = 0, rank = 0;
end_hear:
  do
#ifdef LIVENESS
  :: true -> break /* for safety, a process that stops has no order that one that does nothing lacks */
#endif
  :: atomic {
       if
       :: cl[1].leg != NOTHING -> c = 1
#if CLAIMS > 1
       :: cl[2].leg != NOTHING -> c = 2
#endif
#if CLAIMS > 2
       :: cl[3].leg != NOTHING -> c = 3
#endif
       fi;
       if
       :: rank = QUEUED
       :: cl[c].started -> rank = RINGS
       :: cl[c].leg == OVER -> rank = OVER
       fi;
       hear(cl[c].whose, c, rank, false);
       c = 0; rank = 0
     }
  od
}

/* ---- settle */

#ifdef NO_KERNEL_TIMER
#define FROZEN_ONE_IS_ENDED(c) skip
#else
#define FROZEN_ONE_IS_ENDED(c) \
  if :: cl[c].post == UNSENT || cl[c].post == LOOKED -> cl[c].post = NO_POST :: else -> skip fi
#endif
#ifdef VERDICT_AT_ONCE
#define HAS_LANDED(c) true
#else
#define HAS_LANDED(c) (cl[c].post != ON_ITS_WAY) /* SETTLE_S is longer than any byte is in transit */
#endif
#define TAKES_IN(a) AS_OF(a, SETTLE)
#if INTERVIEWS > 1
#define IS_MISSING(c) (cl[c].leg == NOTHING || cl[c].unlisted)
#else
#define IS_MISSING(c) true /* it is not on the list, or not on it yet */
#endif
#ifdef VERDICT_WITHOUT_AN_ANSWER
#define HAS_AN_ANSWER(a, c) true
#else
#define HAS_AN_ANSWER(a, c) (at[a].listed || !IS_LIVE(c)) /* without a list, settle waits until the call must be over */
#endif

inline gives_up(a) {
#ifdef AN_EMPTY_LIST_IS_PROOF
  not_placed(a)
#else
  proof_missing(a);
#ifdef THE_UNKNOWN_IS_RETRIED
  if :: a == 1 -> created(2) :: else -> skip fi
#endif
#endif
}

inline lapses(a) {
  FROZEN_ONE_IS_ENDED(at[a].token);
#ifdef A_LAPSED_LEASE_IS_PENDING
  not_placed(a)
#else
  answer_lost(a)
#endif
}

#ifdef LIVENESS
#define IS_SEARCHED_FOR(a) false /* it would be searched for endlessly; really until the call must be over */
#else
#define IS_SEARCHED_FOR(a) (at[a].reason == OUTCOME_UNKNOWN && !at[a].looked_for)
#endif
#define IS_ASKED_FOR(a) (at[a].phase == PLACED || at[a].phase == UNKNOWN || at[a].looked_for || IS_SEARCHED_FOR(a))

active proctype Settle() {
  byte a = 0, c = 0, rank = 0;
  bool is_listed = false;
end_settle:
  do
  :: atomic { at[1].state == PENDING && !at[1].held -> expired(1) }
  :: atomic { at[2].state == PENDING && !at[2].held -> expired(2) }
#ifndef SILENCE_IS_NOT_NOTICED
  :: atomic { at[1].phase == DIALLING -> lapses(1) }
  :: atomic { at[2].phase == DIALLING -> lapses(2) }
#endif
#ifndef CARRIER_IS_NOT_POLLED
  :: atomic {
       if :: IS_ASKED_FOR(1) -> a = 1 :: IS_ASKED_FOR(2) -> a = 2 fi;
       at[a].as_of = at[a].as_of | (1 << SETTLE);
       c = at[a].token;
       if :: at[a].hang_up && IS_LIVE(c) -> cl[c].leg = OVER; cl[c].how = CANCELLED_AT_CARRIER :: else -> skip fi;
       if
       :: rank = cl[c].leg
       :: (at[a].phase == UNKNOWN || IS_SEARCHED_FOR(a)) && IS_MISSING(c) -> rank = NOTHING; is_listed = HAS_LANDED(c)
       :: deaths < DEATHS -> deaths++; rank = NOTHING /* the poll fails */
       fi
     };
     /* The result is applied later, if no event has happened since. */
     atomic {
       if
       :: TAKES_IN(a) && rank != NOTHING -> hear(a, c, rank, true)
#ifndef UNKNOWN_IS_NOT_GIVEN_UP
       :: TAKES_IN(a) && rank == NOTHING && at[a].phase == UNKNOWN && HAS_LANDED(c) ->
          at[a].listed = at[a].listed || is_listed;
          if :: HAS_AN_ANSWER(a, c) -> gives_up(a) :: else -> skip fi
#endif
          /* Enough time has passed: the call must be over. */
       :: TAKES_IN(a) && rank == NOTHING && (at[a].phase == PLACED || at[a].looked_for) && cl[c].leg == OVER ->
          proof_missing(a)
       :: else -> skip
       fi;
       at[a].as_of = at[a].as_of & ~(1 << SETTLE);
       a = 0; c = 0; rank = 0; is_listed = false
     }
#endif
  od
}

/* ---- a client, and time */

#ifndef COMMANDS
#define COMMANDS 2
#endif

active proctype Caller() {
  byte a = 0, times = 0;
end_caller:
  do
  :: times < COMMANDS ->
#ifdef DELETE_READS_THEN_WRITES
     if :: at[1].state == PENDING -> a = 1 :: at[2].state == PENDING -> a = 2 fi;
     atomic { at[a].state = CANCELLED; at[a].reason = CANCELLED_BY_USER; at[a].is_gone = true };
     break
#else
     /* Accepted: no claim from now on. A call in progress gives a 409. */
     atomic {
       times++;
       if :: at[1].state == PENDING -> a = 1 :: at[2].state == PENDING -> a = 2 :: else -> goto told fi;
       at[a].held = true
     };
     atomic {
       at[a].held = false;
       assert(at[a].state == PENDING);
       if :: cancelled(a) :: rescheduled(a) fi
     };
told:
     a = 0
#endif
  od
}

/* The hours end only while no call is between last look and carrier: openings leave room for that. */
#define IS_BETWEEN(c) (cl[c].post == LOOKED || cl[c].post == ON_ITS_WAY)
#if CLAIMS > 2
#define NONE_IS_BETWEEN (!IS_BETWEEN(1) && !IS_BETWEEN(2) && !IS_BETWEEN(3))
#else
#define NONE_IS_BETWEEN (!IS_BETWEEN(1) && !IS_BETWEEN(2))
#endif

active proctype Time() {
  bool ends;
  atomic {
    created(1);
#if INTERVIEWS > 1
    created(2);
#endif
#if INTERVIEWS == 1
    if :: ends = true :: ends = false fi
#endif
  };
end_time:
  do
  :: atomic { ends && !shut && NONE_IS_BETWEEN -> shut = true; ends = false }
  :: atomic { shut -> shut = false }
  :: atomic { at[1].state == PENDING && !at[1].due -> at[1].due = true }
  :: atomic { at[2].state == PENDING && !at[2].due -> at[2].due = true }
  od
}

#ifdef LIVENESS
ltl every_attempt_ends { <> (IS_OVER(1) && (at[2].state == NONE || IS_OVER(2))) }
#endif
