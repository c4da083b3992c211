/* Batches of the dial protocol: an item that is stale is left out, and the other items are not affected.
 *
 * A dial worker claims up to two attempts in one transaction, takes one last look at up to two calls, and records up to
 * two answers in one transaction. The batches of one worker are independent: calls that were claimed together are
 * looked at, sent and recorded in any grouping and order. There are three attempts of three interviews, two of them to
 * one number, and two workers, which get hints of any of them. A client cancels attempts, and a rule begins to block
 * them (a deleted company, a pause, the end of calling hours). FAULTS times in all, a worker dies or does not learn
 * whether its transaction was committed. A worker that died continues as a new one, which knows nothing.
 *
 * A transaction is one step here: it locks its rows before it tests them. A transaction that was rolled back is none.
 * Rules that are the same for a single attempt are in dial.pml: due times, waiting commands, retries, the carrier's
 * queue, lists that lack a call, and late proof. Here the carrier lists each call at once, a call that is over was
 * answered, and attempts that are pending after the last claim expire.
 *
 * Events follow scheduler/lifecycle/state_machine.py, as in dial.pml. An inline that only skips marks a situation that
 * the search must reach. A token is the number of a claim. An epoch is kept only in comparison with the epoch that a
 * worker knows, which is equivalent and needs fewer states.
 *
 * `make model` runs it; tests/verification/model/__main__.py has the sizes, and the rule that each -DNAME breaks.
 */
#ifndef CLAIMS
#define CLAIMS 3 /* in all */
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 3
#endif
#ifndef FAULTS
#define FAULTS 1
#endif
#ifndef CANCELS
#define CANCELS 1
#endif
#ifndef BLOCKS
#define BLOCKS 1
#endif

#define NUMBER_OF(a) (a == 1 -> 1 : 2)

mtype:state = { NONE, PENDING, IN_PROGRESS, COMPLETED, FAILED, CANCELLED };
mtype:phase = { NO_PHASE, DIALLING, PLACED, UNKNOWN };
mtype:reason = { NO_REASON, ANSWERED, OUTCOME_UNKNOWN, EXPIRED, CANCELLED_BY_USER };
mtype:post = { NO_POST, UNSENT, LOOKED, NOT_SENT, ON_ITS_WAY, TAKEN, NEVER_TAKEN };
mtype:leg = { NO_LEG, RINGS, OVER };

/* The epoch that a worker knows, compared with the attempt's. */
#define OLD 0
#define PRESENT 1
#define NEXT 2

typedef Attempt {
  mtype:state state = NONE;
  mtype:phase phase = NO_PHASE;
  mtype:reason reason = NO_REASON;
  byte token = 0;
  bool blocked = false; /* by a rule that the last look reads */
  /* Fields for the assertions only. */
  bool is_gone = false; /* after a 204 no phone may ring for it */
  byte rings = 0
};

typedef Claim {
  byte whose = 0; /* its attempt */
  byte epoch = OLD; /* as the worker knows it */
  byte by = 0; /* the worker that holds it */
  mtype:post post = NO_POST;
  mtype:leg leg = NO_LEG
};

/* Index 0 is no attempt and no claim: the second item of a batch of one. */
Attempt at[4];
Claim cl[CLAIMS + 1];
byte claims = 0, faults = 0;

#define IS_OVER(a) (at[a].state == COMPLETED || at[a].state == FAILED || at[a].state == CANCELLED)
#define OF(c) at[cl[c].whose]
#define ME (_pid + 1)

/* ---- events of an attempt */

#define AGES(c, a) cl[c].epoch = cl[c].epoch - (cl[c].whose == a && cl[c].epoch != OLD)
#if CLAIMS > 2
#define RAISES_EPOCH(a) AGES(1, a); AGES(2, a); AGES(3, a)
#else
#define RAISES_EPOCH(a) AGES(1, a); AGES(2, a)
#endif
#define TAKES(a, source, target, why) \
  assert(at[a].state == source); at[a].state = target; at[a].reason = why; RAISES_EPOCH(a)

inline created(a) { TAKES(a, NONE, PENDING, NO_REASON) }

inline claimed(a) { TAKES(a, PENDING, IN_PROGRESS, NO_REASON); at[a].phase = DIALLING; at[a].token = claims }

inline deferred(a) { TAKES(a, IN_PROGRESS, PENDING, NO_REASON); at[a].phase = NO_PHASE }

inline not_placed(a) { TAKES(a, IN_PROGRESS, PENDING, NO_REASON); at[a].phase = NO_PHASE }

inline placed(a) { TAKES(a, IN_PROGRESS, IN_PROGRESS, NO_REASON); at[a].phase = PLACED }

inline answer_lost(a) { TAKES(a, IN_PROGRESS, IN_PROGRESS, NO_REASON); at[a].phase = UNKNOWN }

inline ended(a) { TAKES(a, IN_PROGRESS, COMPLETED, ANSWERED); at[a].phase = NO_PHASE }

inline proof_missing(a) { TAKES(a, IN_PROGRESS, FAILED, OUTCOME_UNKNOWN); at[a].phase = NO_PHASE }

inline expired(a) { TAKES(a, PENDING, FAILED, EXPIRED) }

inline cancelled(a) { TAKES(a, PENDING, CANCELLED, CANCELLED_BY_USER); at[a].is_gone = true }

/* ---- situations */

inline one_row_is_stale() { skip }
inline both_are_to_one_number() { skip }
inline claim_is_in_doubt() { skip }
inline one_call_is_blocked() { skip }
inline one_answer_is_late() { skip }
inline one_token_is_replaced() { skip }
inline record_is_in_doubt() { skip }
inline one_call_is_sent_at_a_death() { skip }

/* ---- claim */

#define IS_FREE(number) \
  ((NUMBER_OF(1) != number || at[1].state != IN_PROGRESS) && \
   (NUMBER_OF(2) != number || at[2].state != IN_PROGRESS) && \
   (NUMBER_OF(3) != number || at[3].state != IN_PROGRESS))
#define IS_CLAIMABLE(a) (at[a].state == PENDING && !at[a].blocked && IS_FREE(NUMBER_OF(a)))
#ifdef LINES_ARE_TESTED_ROW_BY_ROW
#define ARE_TO_ONE_NUMBER(a, b) false
#else
#define ARE_TO_ONE_NUMBER(a, b) (NUMBER_OF(a) == NUMBER_OF(b))
#endif
#ifdef A_CLAIM_IN_DOUBT_IS_SENT
#define IN_DOUBT UNSENT
#else
#define IN_DOUBT NOT_SENT
#endif

/* Ids of hints, stale or not: an attempt, and another or none. */
inline takes_hints() {
  if :: a = 1; b = 2 :: a = 1; b = 3 :: a = 2; b = 3 :: a = 1; b = 0 :: a = 2; b = 0 :: a = 3; b = 0 fi
}

inline tests_each_row() {
  first = IS_CLAIMABLE(a);
  second = IS_CLAIMABLE(b);
  if
  :: first && second && ARE_TO_ONE_NUMBER(a, b) -> both_are_to_one_number(); second = false
  :: b != 0 && first != second -> one_row_is_stale()
  :: else -> skip
  fi;
#ifdef A_BATCH_TRUSTS_ITS_IDS
  first = first || second; second = first && b != 0;
#endif
#ifdef A_STALE_ROW_STOPS_ITS_BATCH
  first = first && (second || b == 0); second = first && second;
#endif
  second = second && claims + first < CLAIMS
}

inline holds(a, what) {
  claims++;
  cl[claims].whose = a; cl[claims].epoch = NEXT; cl[claims].by = ME; cl[claims].post = what
}

inline claims_one(a, is_committed, what) {
#ifdef A_BATCH_TRUSTS_ITS_IDS
  at[a].state = PENDING;
#endif
  holds(a, what);
  if :: is_committed -> claimed(a) :: else -> skip fi
}

inline claims_batch(is_committed, what) {
  if :: first -> claims_one(a, is_committed, what) :: else -> skip fi;
  if :: second -> claims_one(b, is_committed, what) :: else -> skip fi
}

/* Only its call remains. */
inline is_dropped(c) {
  cl[c].by = 0; cl[c].epoch = OLD;
  if :: cl[c].post != ON_ITS_WAY -> cl[c].post = NO_POST :: else -> skip fi
}

/* ---- last look */

/* Like the query, by the epoch alone: the order has the token of the row. */
#define IS_MINE(c) (OF(c).state == IN_PROGRESS && cl[c].epoch == PRESENT)
#define MAY_BE_SENT(c) (IS_MINE(c) && !OF(c).blocked)

inline judges_each_call() {
  first = MAY_BE_SENT(c);
  second = MAY_BE_SENT(d);
  if :: d != 0 && first != second -> one_call_is_blocked() :: else -> skip fi;
#ifdef A_LOOK_IS_JUDGED_AS_A_WHOLE
  first = first || second; second = first && d != 0;
#endif
#ifdef A_BLOCKED_CALL_STOPS_ITS_LOOK
  first = first && (second || d == 0); second = first && second;
#endif
}

inline is_judged(c, may_be_sent) {
  if
  :: may_be_sent -> cl[c].post = LOOKED
  :: !may_be_sent && IS_MINE(c) -> cl[c].post = NOT_SENT
  :: else -> is_dropped(c)
  fi
}

/* ---- record */

#ifdef RECORDS_TRUST_THE_EPOCH
#define IS_CURRENT(c) (cl[c].epoch == PRESENT)
#else
#define IS_CURRENT(c) (cl[c].epoch == PRESENT && OF(c).token == c)
#endif
#define IS_REPLACED(c) (OF(c).state == IN_PROGRESS && OF(c).token > c)

inline tests_each_answer() {
  first = IS_CURRENT(c);
  second = d != 0 && IS_CURRENT(d);
  if
  :: d != 0 && first != second ->
     one_answer_is_late();
     if
     :: (!first && IS_REPLACED(c)) || (!second && IS_REPLACED(d)) -> one_token_is_replaced()
     :: else -> skip
     fi
  :: else -> skip
  fi;
#ifdef A_RECORD_IS_TESTED_AS_A_WHOLE
  first = first || second; second = first && d != 0;
#endif
#ifdef A_LATE_ANSWER_STOPS_ITS_RECORD
  first = first && (second || d == 0); second = first && second;
#endif
}

inline is_recorded(c) {
  if
  :: cl[c].post == NOT_SENT -> deferred(cl[c].whose)
  :: cl[c].post == TAKEN -> placed(cl[c].whose)
  :: cl[c].post == NEVER_TAKEN -> not_placed(cl[c].whose)
     /* The answer timed out, broke off or was malformed. */
  :: cl[c].post != NOT_SENT -> answer_lost(cl[c].whose)
  fi
}

inline records_batch() {
  if :: first -> is_recorded(c) :: else -> skip fi;
  if :: second -> is_recorded(d) :: else -> skip fi;
  /* One late answer does not stop the other. */
  assert(!IS_CURRENT(c) && (d == 0 || !IS_CURRENT(d)))
}

/* ---- dial workers */

#define IS_SENT(c) (cl[c].post == ON_ITS_WAY || cl[c].post == TAKEN || cl[c].post == NEVER_TAKEN)

/* The end of a process is the end of all its calls. Bytes that were sent are on their way. */
inline worker_ends(worker) {
  i = 1;
  do
  :: i <= CLAIMS ->
     if :: cl[i].by == worker -> is_dropped(i) :: else -> skip fi;
     i++
  :: else -> i = 0; break
  od
}

#define IS_MY_CALL(c) (cl[c].by == ME)
#define IS_MY_SENT(c) (cl[c].by == ME && IS_SENT(c))
#define IS_UNSENT(c) (cl[c].by == ME && cl[c].post == UNSENT)
#define IS_LOOKED_AT(c) (cl[c].by == ME && cl[c].post == LOOKED)
#define HAS_AN_ANSWER(c) (cl[c].by == ME && (cl[c].post == NOT_SENT || IS_SENT(c)))

/* ONE: any call of a kind. SOME: one or two of them. */
#if CLAIMS > 2
#define PICKS_ONE(IS_SUCH) if :: IS_SUCH(1) -> c = 1 :: IS_SUCH(2) -> c = 2 :: IS_SUCH(3) -> c = 3 fi
#define PICKS_SOME(IS_SUCH) \
  if \
  :: IS_SUCH(1) -> c = 1 :: IS_SUCH(1) && IS_SUCH(2) -> c = 1; d = 2 \
  :: IS_SUCH(2) -> c = 2 :: IS_SUCH(1) && IS_SUCH(3) -> c = 1; d = 3 \
  :: IS_SUCH(3) -> c = 3 :: IS_SUCH(2) && IS_SUCH(3) -> c = 2; d = 3 \
  fi
#define ANY(IS_SUCH) (IS_SUCH(1) || IS_SUCH(2) || IS_SUCH(3))
#else
#define PICKS_ONE(IS_SUCH) if :: IS_SUCH(1) -> c = 1 :: IS_SUCH(2) -> c = 2 fi
#define PICKS_SOME(IS_SUCH) \
  if :: IS_SUCH(1) -> c = 1 :: IS_SUCH(2) -> c = 2 :: IS_SUCH(1) && IS_SUCH(2) -> c = 1; d = 2 fi
#define ANY(IS_SUCH) (IS_SUCH(1) || IS_SUCH(2))
#endif

active [2] proctype Dialler() {
  byte a = 0, b = 0, c = 0, d = 0, i = 0;
  bool first = false, second = false;
end_idle:
  do
     /* The workers are interchangeable, so the first claim is the first one's. */
  :: atomic {
       claims < CLAIMS && (claims > 0 || ME == 1) -> takes_hints();
       tests_each_row();
       if
       :: claims_batch(true, UNSENT);
          /* One stale row does not stop the other. */
          assert(claims == CLAIMS || (!IS_CLAIMABLE(a) && !IS_CLAIMABLE(b)))
       :: (first || second) && faults < FAULTS -> faults++; claim_is_in_doubt(); claims_batch(true, IN_DOUBT)
       :: (first || second) && faults < FAULTS -> faults++; claim_is_in_doubt(); claims_batch(false, IN_DOUBT)
       fi;
       a = 0; b = 0; first = false; second = false
     }
  :: atomic {
       PICKS_SOME(IS_UNSENT);
       judges_each_call();
       is_judged(c, first);
       if :: d != 0 -> is_judged(d, second) :: else -> skip fi;
       /* One blocked call does not stop the other. */
       assert(!MAY_BE_SENT(c) || cl[c].post == LOOKED);
       assert(!MAY_BE_SENT(d) || cl[d].post == LOOKED);
       c = 0; d = 0; first = false; second = false
     }
     /* It was not sent in time and is given back. */
  :: atomic { PICKS_ONE(IS_UNSENT); cl[c].post = NOT_SENT; c = 0 }
     /* Its look has become too old and is repeated. */
  :: atomic { PICKS_ONE(IS_LOOKED_AT); cl[c].post = UNSENT; c = 0 }
  :: atomic { PICKS_ONE(IS_LOOKED_AT); cl[c].post = ON_ITS_WAY; c = 0 }
  :: atomic {
       PICKS_SOME(HAS_AN_ANSWER);
       tests_each_answer();
       if
       :: records_batch(); is_dropped(c); if :: d != 0 -> is_dropped(d) :: else -> skip fi
       :: faults < FAULTS -> faults++; record_is_in_doubt(); records_batch() /* and again later */
#ifdef A_FAILED_RECORD_SENDS_AGAIN
       :: faults < FAULTS ->
          faults++; cl[c].post = ON_ITS_WAY;
          if :: d != 0 -> cl[d].post = ON_ITS_WAY :: else -> skip fi
#endif
       fi;
       c = 0; d = 0; first = false; second = false
     }
  :: atomic {
       faults < FAULTS && ANY(IS_MY_CALL) -> faults++;
       if :: ANY(IS_MY_SENT) && ANY(IS_UNSENT) -> one_call_is_sent_at_a_death() :: else -> skip fi;
       worker_ends(ME)
     }
  od
}

/* ---- the carrier, and its callbacks */

#define IS_ON_ITS_WAY(c) (cl[c].post == ON_ITS_WAY)
#define RINGS_NOW(c) (cl[c].leg == RINGS)
#define HAS_NEWS(c) (cl[c].leg != NO_LEG)

inline lands(c) {
  if
  :: cl[c].post = NEVER_TAKEN /* and the worker may lose this answer */
  :: true ->
     cl[c].post = TAKEN;
     /* Only while its own claim is valid and nothing blocks it, once, and without another live call to that number. */
     assert(OF(c).state == IN_PROGRESS && OF(c).token == c);
     assert(!OF(c).is_gone && !OF(c).blocked);
     OF(c).rings++;
     assert(OF(c).rings == 1);
     other = 1;
     do
     :: other <= CLAIMS ->
        assert(cl[other].leg != RINGS || NUMBER_OF(cl[other].whose) != NUMBER_OF(cl[c].whose)); other++
     :: else -> other = 0; break
     od;
     cl[c].leg = RINGS
  fi;
  if :: cl[c].by == 0 -> cl[c].post = NO_POST :: else -> skip fi
}

inline hear(a, c) {
  assert(at[a].token == c && at[a].state != PENDING); /* otherwise an alarm, which this carrier never causes */
  if
  :: at[a].state == IN_PROGRESS ->
     if :: at[a].phase != PLACED -> placed(a) :: else -> skip fi;
     if :: cl[c].leg == OVER -> ended(a) :: else -> skip fi
  :: else -> skip
  fi
}

active proctype Carrier() {
  byte c = 0, other = 0;
end_carrier:
  do
  :: atomic { PICKS_ONE(IS_ON_ITS_WAY); lands(c); c = 0 }
  :: atomic { PICKS_ONE(RINGS_NOW); cl[c].leg = OVER; c = 0 }
  :: atomic { PICKS_ONE(HAS_NEWS); hear(cl[c].whose, c); c = 0 }
  od
}

/* ---- settle */

#ifdef THE_TIMER_COVERS_ONE_CALL
#define IS_COVERED(c) (c == 1 || cl[c - 1].by != cl[c].by || IS_SENT(c - 1))
#else
#define IS_COVERED(c) true
#endif

/* The kernel has ended a worker that was frozen past the lease of any of its calls. */
inline lapses(a) {
  c = at[a].token; worker = cl[c].by;
  if :: (cl[c].post == UNSENT || cl[c].post == LOOKED) && IS_COVERED(c) -> worker_ends(worker) :: else -> skip fi;
  c = 0; worker = 0;
  answer_lost(a)
}

#define IS_LEFT(a) (at[a].state == PENDING && claims == CLAIMS)
#define HAS_LAPSED(a) (at[a].phase == DIALLING)
#define HAS_NO_CALL(a) (at[a].phase == UNKNOWN && cl[at[a].token].post != ON_ITS_WAY && cl[at[a].token].leg == NO_LEG)

#define PICKS_ATTEMPT(IS_SUCH) if :: IS_SUCH(1) -> a = 1 :: IS_SUCH(2) -> a = 2 :: IS_SUCH(3) -> a = 3 fi

active proctype Settle() {
  byte a = 0, c = 0, worker = 0, i = 0;
end_settle:
  do
  :: atomic { PICKS_ATTEMPT(IS_LEFT); expired(a); a = 0 }
  :: atomic { PICKS_ATTEMPT(HAS_LAPSED); lapses(a); a = 0 }
  :: atomic { PICKS_ATTEMPT(HAS_NO_CALL); proof_missing(a); a = 0 }
  od
}

/* ---- clients and operators */

#define IS_BETWEEN(c) (cl[c].post == LOOKED || cl[c].post == ON_ITS_WAY)
#define MAY_BE_CANCELLED(a) (at[a].state == PENDING && cancels < CANCELS)
/* A block counts from the next look on. */
#define MAY_BE_BLOCKED(a) \
  (blocks < BLOCKS && !IS_OVER(a) && !at[a].blocked && !(at[a].state == IN_PROGRESS && IS_BETWEEN(at[a].token)))

#if ATTEMPTS > 2
#define CREATED created(1); created(2); created(3)
#else
#define CREATED created(1); created(2)
#endif

active proctype Others() {
  byte a = 0, cancels = 0, blocks = 0;
  atomic { CREATED };
end_others:
  do
  :: atomic { PICKS_ATTEMPT(MAY_BE_CANCELLED); cancelled(a); cancels++; a = 0 }
  :: atomic { PICKS_ATTEMPT(MAY_BE_BLOCKED); at[a].blocked = true; blocks++; a = 0 }
  od
}
