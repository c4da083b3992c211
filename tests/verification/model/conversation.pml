/* Conversations: a call is answered, its outcome is reported, and its end, its verdict, a request for other instructions
 * and other commands come in any order. No order leads to a second open attempt, a ring outside, two decisions about one
 * call, a lost follower, or a ring after the person has opted out.
 *
 * The model has one interview of a company that may report, and up to ATTEMPTS attempts of it. A voice server reports
 * two outcomes of each call, which differ: CALL_BACK, and FINISHED or (with OPT_OUTS) OPTED_OUT or (with TECHNICALS)
 * TECHNICAL. An opt-out may come late. A client invokes the interview or deletes it, COMMANDS times. News of the
 * carrier come in any order, or never. Settle polls, ends waits, gives calls up, and hears late proof. With OTHERS,
 * another interview of the company calls the same number, any number of times, and the client only deletes. With LATE,
 * the first call is given up at the start, while its phone rings: its late proof waits for a report, until the key of
 * the voice server is revoked.
 *
 * Events follow scheduler/lifecycle/state_machine.py, as in dial.pml, which has what happens between claim and POST:
 * here a claimed call is placed in one step. Accepted commands wait in `inbox`, and are applied in their order. Left out
 * are WRONG_PERSON, commands in quarantine, and the hour after which an end waits for no report. Without LATE, no key is
 * revoked, and late proof waits for no report.
 *
 * States that differ in nothing that is read later are one state. A verdict is chosen when it is heard. Facts about a
 * call that nothing reads after the decision are forgotten. A report is sent only if it can count and is not waiting:
 * another one only delays steps, which are late in other orders too. No process stops: Judge lists the steps that must
 * happen, and judges each state in which none is possible.
 *
 * `make model` runs it; tests/verification/model/__main__.py has the sizes, and the rule that each -DNAME breaks.
 */
#ifndef ATTEMPTS
#define ATTEMPTS 2 /* with followers and invokes; later ones are not created */
#endif
#ifndef COMMANDS
#define COMMANDS 1
#endif
#ifndef INBOX
#define INBOX 3
#endif

mtype:state = { NONE, PENDING, IN_PROGRESS, COMPLETED, FAILED, CANCELLED };
mtype:reason = {
  NO_REASON, ANSWERED, VOICEMAIL, INSTRUCTIONS_FAILED, BUSY, OUTCOME_UNKNOWN, REPLACED, INTERVIEW_DELETED
};
mtype:status = { IS_SCHEDULED, IS_COMPLETED, IS_FAILED, IS_CANCELLED };
mtype:outcome = { NO_OUTCOME, FINISHED, CALL_BACK, OPTED_OUT, TECHNICAL };
mtype:kind = {
  NO_KIND, REPORT_FINISHED, REPORT_CALL_BACK, REPORT_OPTED_OUT, REPORT_TECHNICAL, INVOKE, DELETE_INTERVIEW
};

/* Besides CALL_BACK. */
#ifdef OPT_OUTS
#define REPORT_OTHER REPORT_OPTED_OUT
#else
#ifdef TECHNICALS
#define REPORT_OTHER REPORT_TECHNICAL
#else
#define REPORT_OTHER REPORT_FINISHED
#endif
#endif

/* Progress of a call, for the carrier and as it was heard. */
#define NOTHING 0
#define RINGS 1
#define TALKS 2
#define OVER 3

typedef Attempt {
  mtype:state state = NONE;
  mtype:reason reason = NO_REASON;
  mtype:outcome outcome = NO_OUTCOME;
  byte leg = NOTHING;
  bool was_answered = false;
  byte heard = NOTHING;
  bool verdict = false; /* it was heard */
  bool by_machine = false; /* what the verdict says */
  bool failed = false; /* it was heard that the voice server gave no instructions */
  bool hung_up = false; /* its end was heard, and waits for the verdict or a late report */
  bool awaited = false; /* its end is known, and its conversation may still report */
  bool looked_for = false; /* it was given up and has a live leg */
  bool was_waited_for = false; /* the time for a verdict and for a late report is over */
  /* Fields for the assertions only. */
  bool was_given_up = false;
  bool was_reported = false; /* a report was answered with success */
  bool in_time = false; /* a report that counts was accepted, and none is applied yet */
  byte decided = 0;
  byte booked = 0
};

Attempt at[ATTEMPTS + 1];
byte made = 0;
mtype:status status = IS_SCHEDULED;
bool is_deleted = false;
bool is_proven_late = false; /* late proof has completed the interview */
#ifdef OTHERS
bool is_line_taken = false; /* the other interview has claimed a call */
bool is_refused = false; /* for an assertion only: an opt-out that counts was accepted */
#define IS_LINE_TAKEN is_line_taken
#else
#define IS_LINE_TAKEN false
#endif
#ifdef LATE
bool has_key = true; /* a voice server may report outcomes */
#define HAS_KEY has_key
#else
#define HAS_KEY true
#endif
chan inbox = [INBOX] of { mtype:kind, byte };

#define IS_OPEN(a) (at[a].state == PENDING || at[a].state == IN_PROGRESS)
#define IS_LIVE(a) (at[a].leg == RINGS || at[a].leg == TALKS)
#define HAS_OPEN (made > 0 && IS_OPEN(made)) /* earlier attempts are closed: see `created` */
#define HAS_OPTED_OUT (at[1].outcome == OPTED_OUT || at[2].outcome == OPTED_OUT || at[ATTEMPTS].outcome == OPTED_OUT)
#define HAS_AWAITED (at[1].awaited || at[2].awaited || at[ATTEMPTS].awaited)

/* ---- events of an attempt */

#define TAKES(a, source, target, why) \
  assert(at[a].state == source); at[a].state = target; at[a].reason = why

/* At most one attempt is open, whoever creates the next. */
inline created(a) {
  for (other : 1 .. ATTEMPTS) { assert(!IS_OPEN(other)) };
  other = 0;
  assert(!is_deleted && status == IS_SCHEDULED);
  TAKES(a, NONE, PENDING, NO_REASON)
}

inline claimed(a) { TAKES(a, PENDING, IN_PROGRESS, NO_REASON) }

inline placed(a) { TAKES(a, IN_PROGRESS, IN_PROGRESS, NO_REASON) }

inline progressed(a, rank) { TAKES(a, IN_PROGRESS, IN_PROGRESS, NO_REASON); at[a].heard = rank }

inline verdict_heard(a, is_machine) {
  if
  :: at[a].state == IN_PROGRESS -> TAKES(a, IN_PROGRESS, IN_PROGRESS, NO_REASON)
  :: else -> TAKES(a, FAILED, FAILED, OUTCOME_UNKNOWN)
  fi;
  at[a].verdict = true; at[a].by_machine = is_machine
}

inline verdict_awaited(a) {
  if
  :: at[a].state == IN_PROGRESS -> TAKES(a, IN_PROGRESS, IN_PROGRESS, NO_REASON)
  :: else -> TAKES(a, FAILED, FAILED, OUTCOME_UNKNOWN); at[a].looked_for = true
  fi;
  at[a].heard = OVER; at[a].hung_up = true
}

inline reported(a, what) {
  if
  :: at[a].state == IN_PROGRESS -> TAKES(a, IN_PROGRESS, IN_PROGRESS, NO_REASON)
  :: at[a].reason == VOICEMAIL -> assert(what == OPTED_OUT); TAKES(a, FAILED, FAILED, VOICEMAIL)
  :: at[a].reason == INSTRUCTIONS_FAILED -> assert(what == OPTED_OUT); TAKES(a, FAILED, FAILED, INSTRUCTIONS_FAILED)
  :: at[a].reason == OUTCOME_UNKNOWN ->
     assert(at[a].looked_for || what == OPTED_OUT); TAKES(a, FAILED, FAILED, OUTCOME_UNKNOWN)
  :: else -> assert(at[a].awaited || what == OPTED_OUT); TAKES(a, COMPLETED, COMPLETED, ANSWERED)
  fi;
  assert(at[a].outcome == NO_OUTCOME || what == OPTED_OUT);
  at[a].outcome = what; at[a].awaited = false; at[a].was_reported = true; at[a].in_time = false
}

inline outcome_awaited(a) { TAKES(a, COMPLETED, COMPLETED, ANSWERED); at[a].awaited = true }

inline not_reported(a) {
  TAKES(a, COMPLETED, COMPLETED, ANSWERED);
  at[a].outcome = FINISHED; at[a].awaited = false
}

inline is_known(a, why) {
  at[a].heard = OVER; at[a].hung_up = false; at[a].looked_for = false;
  if :: why == ANSWERED -> at[a].booked++; assert(at[a].booked == 1) :: else -> skip fi
}

inline ended(a, why) {
  if
  :: why == ANSWERED -> TAKES(a, IN_PROGRESS, COMPLETED, ANSWERED)
  :: why == VOICEMAIL -> TAKES(a, IN_PROGRESS, FAILED, VOICEMAIL)
  :: why == INSTRUCTIONS_FAILED -> TAKES(a, IN_PROGRESS, FAILED, INSTRUCTIONS_FAILED)
  :: why == BUSY -> TAKES(a, IN_PROGRESS, FAILED, BUSY)
  fi;
  is_known(a, why)
}

inline proof_missing(a) {
  if
  :: at[a].state == IN_PROGRESS -> TAKES(a, IN_PROGRESS, FAILED, OUTCOME_UNKNOWN)
  :: else -> TAKES(a, FAILED, FAILED, OUTCOME_UNKNOWN)
  fi;
  at[a].looked_for = false; at[a].hung_up = false; at[a].was_given_up = true
}

inline leg_seen(a, rank) {
  TAKES(a, FAILED, FAILED, OUTCOME_UNKNOWN); at[a].heard = rank; at[a].looked_for = true
}

inline proven(a, why) {
  if
  :: why == ANSWERED -> TAKES(a, FAILED, COMPLETED, ANSWERED)
  :: why == VOICEMAIL -> TAKES(a, FAILED, FAILED, VOICEMAIL)
  :: why == INSTRUCTIONS_FAILED -> TAKES(a, FAILED, FAILED, INSTRUCTIONS_FAILED)
  :: why == BUSY -> TAKES(a, FAILED, FAILED, BUSY)
  fi;
  is_known(a, why)
}

inline cancelled(a, why) {
  if
  :: why == REPLACED -> TAKES(a, PENDING, CANCELLED, REPLACED)
  :: why == INTERVIEW_DELETED -> TAKES(a, PENDING, CANCELLED, INTERVIEW_DELETED)
  fi
}

/* ---- effects of an end on the interview */

#ifdef A_DELETED_INTERVIEW_GOES_ON
#define MAY_GO_ON true
#else
#define MAY_GO_ON (!is_deleted && status == IS_SCHEDULED)
#endif

/* The interview of a call whose end was lost is FAILED. It goes on at the time that the person named. */
#ifdef A_LATE_CALL_BACK_PASSES_NEWER_CALLS
#define IS_NEWEST(a) true
#else
#define IS_NEWEST(a) (a == made || (a + 1 == made && at[made].state == CANCELLED))
#endif
#ifdef A_LATE_CALL_BACK_REOPENS_ANY
#define MAY_CALL_BACK true
#else
#define MAY_CALL_BACK (!is_deleted && (status == IS_SCHEDULED || status == IS_FAILED))
#endif

inline called_back(a) {
  if
  :: MAY_CALL_BACK && !HAS_OPEN && !HAS_AWAITED && made < ATTEMPTS ->
     assert(made == a || at[made].state == CANCELLED); /* a newer call knows better what the person wants */
     if :: status == IS_FAILED -> status = IS_SCHEDULED :: else -> skip fi;
     made++; created(made)
  :: else -> skip
  fi
}

inline followed(a) {
  assert(!at[a].was_given_up); /* a person decides about an unknown outcome, also after late proof */
  if
  :: MAY_GO_ON && made < ATTEMPTS -> made++; created(made)
  :: else -> skip
  fi
}

inline is_decided(a) { at[a].decided++; assert(at[a].decided == 1) /* one call, one decision */ }

/* After the decision, nothing reads these facts: states that differ in them alone are one state. */
inline is_forgotten(a) {
  at[a].verdict = false; at[a].by_machine = false; at[a].failed = false; at[a].was_waited_for = false;
  at[a].was_given_up = false; at[a].was_reported = false;
  if :: at[a].outcome != OPTED_OUT -> at[a].outcome = NO_OUTCOME :: else -> skip fi
}

/* A follower, or another status of the interview. */
inline decides(a) {
  is_decided(a);
  assert(!HAS_OPEN); /* so a report never finds another attempt */
  if
  :: at[a].reason == ANSWERED && at[a].outcome == CALL_BACK ->
     called_back(a);
     /* Unless the interview was deleted, another call has completed it, or the person has opted out. */
     assert(HAS_OPEN || made == ATTEMPTS || is_deleted || is_proven_late || HAS_OPTED_OUT)
  :: at[a].reason == ANSWERED && at[a].outcome == TECHNICAL -> followed(a)
  :: at[a].reason != ANSWERED -> followed(a)
  :: else -> skip
  fi;
  if
  :: status != IS_SCHEDULED || HAS_OPEN -> skip
  :: else ->
     if
     :: at[a].reason == ANSWERED && (at[a].outcome == FINISHED || at[a].outcome == NO_OUTCOME) -> status = IS_COMPLETED
     :: at[a].reason == ANSWERED && at[a].outcome == OPTED_OUT -> status = IS_CANCELLED
     :: else -> status = IS_FAILED
     fi
  fi;
  assert(at[a].reason != ANSWERED || at[a].outcome != FINISHED || status == IS_COMPLETED || is_deleted ||
         HAS_OPTED_OUT);
  assert(at[a].reason != ANSWERED || at[a].outcome != OPTED_OUT || status == IS_CANCELLED || is_proven_late);
  if :: at[a].state != IN_PROGRESS -> is_forgotten(a) :: else -> skip fi
}

/* Late proof is followed by nothing but a call at a named time. A pending attempt is cancelled, once the call is live or
 * was answered, unless its conversation asked for another one. */
#define IS_UNFINISHED(a) (at[a].reason != ANSWERED || at[a].outcome == CALL_BACK || at[a].outcome == TECHNICAL)

#ifdef A_LATE_FAILURE_ENDS_THE_WAIT
#define MAY_FAIL true
#else
#define MAY_FAIL (!HAS_AWAITED)
#endif

inline cancels_successor() {
  if :: HAS_OPEN && at[made].state == PENDING -> cancelled(made, REPLACED) :: else -> skip fi
}

inline is_proven(a) {
  is_decided(a);
  if :: !IS_UNFINISHED(a) -> cancels_successor() :: else -> skip fi;
  if
#ifdef A_LATE_PROOF_IS_FOLLOWED
  :: at[a].reason == ANSWERED && at[a].outcome == TECHNICAL -> followed(a)
#endif
#ifndef A_LATE_CALL_BACK_IS_LOST
  :: at[a].reason == ANSWERED && at[a].outcome == CALL_BACK && IS_NEWEST(a) -> called_back(a)
#endif
  :: else -> skip
  fi;
  if
  :: !IS_UNFINISHED(a) && status != IS_CANCELLED ->
     is_proven_late = true;
     if
     :: at[a].outcome != OPTED_OUT -> status = IS_COMPLETED
     :: at[a].outcome == OPTED_OUT && status != IS_COMPLETED -> status = IS_CANCELLED
     :: else -> skip
     fi
  :: else ->
     if
     :: status == IS_SCHEDULED && !HAS_OPEN && MAY_FAIL -> status = IS_FAILED
     :: else -> skip
     fi
  fi;
  assert(at[a].reason != ANSWERED || at[a].outcome != CALL_BACK || status != IS_FAILED || made == ATTEMPTS ||
         is_deleted || !IS_NEWEST(a));
  is_forgotten(a)
}

/* An opt-out that is reported after the call: a pending attempt is cancelled, and none follows. */
inline refuses(a) {
#ifndef A_LATE_REFUSAL_LEAVES_THE_RETRY
  cancels_successor();
#endif
#ifdef A_REFUSED_CALL_IS_RETRIED
  if :: at[a].reason == VOICEMAIL && !HAS_OPEN && !at[a].was_given_up -> followed(a) :: else -> skip fi;
#endif
  assert(!HAS_OPEN || at[made].state == IN_PROGRESS);
  if
  :: status == IS_CANCELLED || status == IS_COMPLETED || at[a].looked_for -> skip
  :: else ->
     if
     :: at[a].reason == ANSWERED -> status = IS_CANCELLED
     :: at[a].reason != ANSWERED && !HAS_OPEN && !HAS_AWAITED -> status = IS_FAILED
     :: else -> skip
     fi
  fi;
  if :: at[a].reason != OUTCOME_UNKNOWN -> is_forgotten(a) :: else -> skip fi
}

/* The report counts more than the verdict of a machine, and more than a request for other instructions, unless the
 * conversation itself has reported TECHNICAL. */
#ifdef THE_VERDICT_COUNTS_MORE
#define COUNTS_AS_MACHINE(a) (at[a].verdict && at[a].by_machine)
#else
#define COUNTS_AS_MACHINE(a) (at[a].verdict && at[a].by_machine && at[a].outcome == NO_OUTCOME)
#endif
#ifdef A_FALLBACK_COUNTS_MORE
#define LACKED_INSTRUCTIONS(a) at[a].failed
#else
#define LACKED_INSTRUCTIONS(a) (at[a].failed && (at[a].outcome == NO_OUTCOME || at[a].outcome == TECHNICAL))
#endif

/* A call does not end before a waiting report is applied that would be refused after the end: callbacks come again, and
 * polls are repeated. After an end whose outcome is awaited the report is accepted, so such an end does not wait. */
#define A_REPORT_WAITS (inbox ?? [REPORT_CALL_BACK, _] || inbox ?? [REPORT_OTHER, _])
#define IS_UNREPORTED(a) \
  (at[a].outcome == NO_OUTCOME && (at[a].state == IN_PROGRESS || at[a].looked_for) && \
   (at[a].heard == TALKS || at[a].hung_up))
#define IS_BY_PERSON(a) (at[a].was_answered && !LACKED_INSTRUCTIONS(a) && !COUNTS_AS_MACHINE(a))
#ifdef AN_END_PASSES_A_REPORT
#define MAY_END(a, is_by_person) true
#else
#define MAY_END(a, is_by_person) \
  (!A_REPORT_WAITS || !IS_UNREPORTED(a) || ((is_by_person) && at[a].state == IN_PROGRESS && MAY_GO_ON && HAS_KEY))
#endif

/* Late proof that a live call was answered waits for its report: only a named time can follow from it. It does not wait
 * if no key can report, if an attempt is open that it may replace, or if the time is over. */
#define MAY_BE_REPORTED_LATE(a) (at[a].looked_for && at[a].outcome == NO_OUTCOME && IS_BY_PERSON(a) && MAY_CALL_BACK)
#ifdef A_LATE_WAIT_NEEDS_NO_KEY
#define CAN_REPORT true
#else
#define CAN_REPORT HAS_KEY
#endif
#ifdef A_LATE_WAIT_PASSES_OPEN_ATTEMPTS
#define IS_ALONE true
#else
#define IS_ALONE (!HAS_OPEN && !HAS_AWAITED)
#endif
#ifdef A_LATE_WAIT_NEVER_ENDS
#define TIME_IS_OVER(a) false
#else
#define TIME_IS_OVER(a) at[a].was_waited_for
#endif
#ifdef LATE
#ifdef A_LATE_PROOF_WAITS_FOR_NO_REPORT
#define PROOF_WAITS(a) false
#else
#define PROOF_WAITS(a) (MAY_BE_REPORTED_LATE(a) && CAN_REPORT && IS_ALONE && !TIME_IS_OVER(a))
#endif
#endif

inline ends(a) {
  if
  :: at[a].was_answered && LACKED_INSTRUCTIONS(a) -> why = INSTRUCTIONS_FAILED
  :: at[a].was_answered && !LACKED_INSTRUCTIONS(a) && !COUNTS_AS_MACHINE(a) -> why = ANSWERED
  :: at[a].was_answered && !LACKED_INSTRUCTIONS(a) && COUNTS_AS_MACHINE(a) -> why = VOICEMAIL
  :: !at[a].was_answered -> why = BUSY
  fi;
  assert(why == ANSWERED || !at[a].was_reported || at[a].outcome == TECHNICAL);
  assert(why != ANSWERED || at[a].verdict || at[a].outcome != NO_OUTCOME || at[a].was_waited_for);
#ifdef LATE
  /* The person may name a time as long after this call as after any other one. */
  assert(!MAY_BE_REPORTED_LATE(a) || !HAS_KEY || HAS_OPEN || HAS_AWAITED || at[a].was_waited_for);
#endif
  if
  :: at[a].state == IN_PROGRESS ->
     ended(a, why);
     if
     :: why == ANSWERED && at[a].outcome == NO_OUTCOME && MAY_GO_ON && HAS_KEY -> outcome_awaited(a)
#ifdef A_REPORT_DECIDES_TWICE
     :: why == ANSWERED && at[a].outcome != NO_OUTCOME -> decides(a); decides(a)
#endif
     :: else -> decides(a)
     fi
  :: else -> proven(a, why); is_proven(a)
  fi;
  why = NO_REASON
}

inline ends_if_it_is_over(a) { /* one copy of `ends` in each process */
  if
#ifdef LATE
  :: ending && PROOF_WAITS(a) ->
     assert(HAS_KEY); /* without one, the call counts at once */
     if :: !at[a].hung_up -> verdict_awaited(a) :: else -> skip fi
  :: ending && !PROOF_WAITS(a) -> ends(a)
#else
  :: ending -> ends(a)
#endif
  :: else -> skip
  fi;
  ending = false
}

/* ---- news of the carrier */

#ifdef AN_END_WAITS_FOR_NO_VERDICT
#define VERDICT_IS_OWED(a) false
#else
#define VERDICT_IS_OWED(a) (at[a].was_answered && !at[a].verdict && !at[a].failed && at[a].outcome == NO_OUTCOME)
#endif

/* Another attempt has the line: this would be an alarm, and the company pauses. */
#define HAS_CALL (IS_LINE_TAKEN || (HAS_OPEN && at[made].state == IN_PROGRESS))

/* A callback that comes late or again is no event. */
inline is_no_news(a) {
#ifdef LATE_NEWS_DECIDES
  if
  :: at[a].reason == ANSWERED && status == IS_SCHEDULED ->
     if :: at[a].outcome == CALL_BACK -> status = IS_FAILED :: else -> status = IS_COMPLETED fi
  :: else -> skip
  fi
#else
  skip
#endif
}

inline hears_progress(a, rank) {
  if
  :: at[a].hung_up -> skip
  :: !at[a].hung_up && at[a].state == IN_PROGRESS && rank > at[a].heard -> progressed(a, rank)
  :: !at[a].hung_up && at[a].reason == OUTCOME_UNKNOWN && (rank > at[a].heard || !at[a].looked_for) && !HAS_CALL ->
     leg_seen(a, rank); cancels_successor()
  :: else -> is_no_news(a)
  fi
}

inline hears_end(a) {
  if
  :: at[a].hung_up && !VERDICT_IS_OWED(a) && MAY_END(a, IS_BY_PERSON(a)) -> ending = true
  :: !at[a].hung_up && (at[a].state == IN_PROGRESS || (at[a].reason == OUTCOME_UNKNOWN && !HAS_CALL)) ->
     if
     :: VERDICT_IS_OWED(a) -> verdict_awaited(a)
     :: !VERDICT_IS_OWED(a) && MAY_END(a, IS_BY_PERSON(a)) -> ending = true
     :: else -> skip
     fi
  :: else -> skip
  fi
}

/* What it says is chosen here: nothing else reads it before. */
inline hears_verdict(a, is_machine) {
  if
  :: at[a].hung_up && MAY_END(a, !is_machine) -> verdict_heard(a, is_machine); ending = true
  :: !at[a].hung_up && !at[a].verdict && at[a].heard >= TALKS && (at[a].state == IN_PROGRESS || at[a].looked_for) ->
     verdict_heard(a, is_machine)
  :: !at[a].hung_up && !at[a].verdict && at[a].heard < TALKS && at[a].state == IN_PROGRESS ->
     progressed(a, TALKS); at[a].verdict = true; at[a].by_machine = is_machine
#ifdef A_LATE_VERDICT_CHANGES_THE_END
  :: at[a].state == COMPLETED && at[a].awaited && is_machine -> ended(a, VOICEMAIL)
#endif
  :: else -> skip
  fi
}

/* The carrier requests other instructions, because the voice server gave none. */
inline hears_fallback(a) {
  if
  :: at[a].failed -> skip
  :: !at[a].failed && at[a].hung_up && MAY_END(a, false) -> at[a].failed = true; ending = true
  :: !at[a].failed && !at[a].hung_up && at[a].state == IN_PROGRESS -> at[a].failed = true; progressed(a, TALKS)
  :: !at[a].failed && !at[a].hung_up && at[a].reason == OUTCOME_UNKNOWN && !HAS_CALL ->
     at[a].failed = true; leg_seen(a, TALKS); cancels_successor()
  :: else -> is_no_news(a)
  fi
}

inline some_attempt(a) {
  if
  :: made > 0 && at[1].leg != NOTHING -> a = 1
  :: made > 1 && at[2].leg != NOTHING -> a = 2
#if ATTEMPTS > 2
  :: made > 2 && at[3].leg != NOTHING -> a = 3
#endif
  fi
}

#define MAY_SAY(a, is_machine) (at[a].was_answered && (!at[a].verdict || at[a].by_machine == is_machine))

active proctype Hear() {
  byte a = 0, other = 0;
  bool ending = false;
  mtype:reason why = NO_REASON;
end_hear:
  do
  :: atomic {
       some_attempt(a);
       if
       :: hears_progress(a, RINGS)
       :: at[a].was_answered -> hears_progress(a, TALKS)
       :: MAY_SAY(a, false) -> hears_verdict(a, false)
       :: MAY_SAY(a, true) -> hears_verdict(a, true)
       :: at[a].was_answered -> hears_fallback(a)
       :: at[a].leg == OVER -> hears_end(a)
       fi;
       ends_if_it_is_over(a);
       a = 0
     }
  od
}

/* ---- dial and the phone */

#ifdef CLAIMS_PASS_COMMANDS
#define NONE_IS_WAITING true
#else
#define NONE_IS_WAITING (len(inbox) == 0) /* Promela forbids !empty(inbox), and IS_CLAIMABLE is negated */
#endif

/* The last look: the report of an earlier call, also of one whose end is unknown, holds every later attempt. */
#ifdef A_LAST_LOOK_FORGETS_REPORTS
#define IS_HELD false
#else
#define IS_HELD HAS_OPTED_OUT
#endif

#define NONE_IS_LOOKED_FOR (!at[1].looked_for && !at[2].looked_for && !at[ATTEMPTS].looked_for)
/* A call whose end is known holds no line. */
#ifdef LATE
#define HOLDS_LINE(a) (at[a].looked_for && !at[a].hung_up)
#else
#define HOLDS_LINE(a) at[a].looked_for
#endif
#define NONE_HOLDS_LINE (!HOLDS_LINE(1) && !HOLDS_LINE(2) && !HOLDS_LINE(ATTEMPTS))

#define IS_CLAIMABLE \
  (made > 0 && at[made].state == PENDING && NONE_IS_WAITING && status == IS_SCHEDULED && NONE_HOLDS_LINE && \
   !IS_HELD && !IS_LINE_TAKEN)

active proctype Dialler() {
  byte other = 0;
end_dialler:
  do
  :: atomic {
       IS_CLAIMABLE ->
       claimed(made);
       assert(empty(inbox) && !is_deleted && !HAS_OPTED_OUT);
       for (other : 1 .. ATTEMPTS) {
         assert(!IS_LIVE(other) || at[other].was_given_up);
         assert(!at[other].looked_for || VERDICT_IS_OWED(other)) /* the person has just spoken */
       };
       other = 0;
       at[made].leg = RINGS;
       if :: placed(made) :: skip fi /* the answer of the carrier may be lost */
     }
  od
}

#ifdef OTHERS
#ifdef A_LAST_LOOK_PASSES_REFUSALS
#define A_REFUSAL_WAITS false
#else
#define A_REFUSAL_WAITS inbox ?? [REPORT_OPTED_OUT, _]
#endif

/* Another interview of the number. Its claim does not read the inbox. Its last look also reads the opt-outs that were
 * accepted and are not applied. An opt-out that is accepted later does not stop the call, which rings and ends. */
active proctype Other() {
end_other:
  do
  :: atomic { !HAS_CALL && NONE_IS_LOOKED_FOR -> is_line_taken = true };
     atomic {
       if
       :: IS_HELD || A_REFUSAL_WAITS -> skip /* the attempt is pending again */
       :: else -> assert(!is_refused)
       fi;
       is_line_taken = false
     }
  od
}
#endif

active proctype Phone() {
  byte a = 0;
end_phone:
  do
  :: atomic {
       if
       :: IS_LIVE(1) -> a = 1
       :: IS_LIVE(2) -> a = 2
#if ATTEMPTS > 2
       :: IS_LIVE(3) -> a = 3
#endif
       fi;
       if
       :: at[a].leg == RINGS -> at[a].leg = TALKS; at[a].was_answered = true
       :: at[a].leg == RINGS -> at[a].leg = OVER
       :: at[a].leg == TALKS -> at[a].leg = OVER
       fi;
       a = 0
     }
  od
}

/* ---- settle */

#ifdef A_WAIT_NEVER_ENDS
#define WAIT_IS_OVER(a) false
#else
#ifdef THE_WAIT_PASSES_COMMANDS
#define WAIT_IS_OVER(a) at[a].awaited
#else
#define WAIT_IS_OVER(a) (at[a].awaited && len(inbox) == 0)
#endif
#endif

inline given_up(a) {
  if
  :: status == IS_SCHEDULED && !HAS_OPEN && !HAS_AWAITED -> status = IS_FAILED
  :: else -> skip
  fi
}

#define END_IS_DUE(a) (at[a].hung_up && !at[a].was_waited_for && MAY_END(a, IS_BY_PERSON(a)))

inline settles(a) {
  if
  :: WAIT_IS_OVER(a) -> not_reported(a); decides(a)
     /* The time is over: the verdict counts as a person. Only then may a call without one end. */
  :: END_IS_DUE(a) -> at[a].was_waited_for = true; ending = true
  :: at[a].state == IN_PROGRESS && !at[a].hung_up && at[a].leg == OVER && MAY_END(a, false) ->
     proof_missing(a); given_up(a)
  :: at[a].looked_for && !at[a].hung_up && at[a].leg == OVER && MAY_END(a, false) -> proof_missing(a); given_up(a)
  fi
}

#define IS_POLLED(a) (at[a].leg == OVER && !at[a].hung_up && (at[a].state == IN_PROGRESS || at[a].looked_for))
#define IS_TO_SETTLE(a) (WAIT_IS_OVER(a) || END_IS_DUE(a) || IS_POLLED(a))

active proctype Settle() {
  byte a = 0, other = 0;
  bool ending = false;
  mtype:reason why = NO_REASON;
end_settle:
  do
  :: atomic {
       if :: IS_TO_SETTLE(1) -> a = 1 :: IS_TO_SETTLE(2) -> a = 2 :: IS_TO_SETTLE(ATTEMPTS) -> a = ATTEMPTS fi;
       if
       :: IS_POLLED(a) -> hears_end(a)
       :: settles(a)
       fi;
       ends_if_it_is_over(a);
       a = 0
     }
  od
}

/* ---- reports and other commands */

inline accepted(what, a) { inbox ! what, a }

#ifdef A_SECOND_REPORT_COUNTS
#define IS_NEW(a) true
#else
#define IS_NEW(a) (at[a].outcome == NO_OUTCOME)
#endif
#ifdef A_FOUND_CALL_IS_NOT_REPORTED
#define IS_LIVE_FOR_US(a) (at[a].state == IN_PROGRESS)
#else
#define IS_LIVE_FOR_US(a) (at[a].state == IN_PROGRESS || at[a].looked_for)
#endif
#define MAY_BE_REPORTED(a) (at[a].awaited || (IS_LIVE_FOR_US(a) && (at[a].heard == TALKS || at[a].hung_up)))

/* An opt-out is accepted of each call that was answered, or may have been, whatever was reported before. */
#define MAY_HAVE_BEEN_ANSWERED(a) \
  (at[a].reason == ANSWERED || at[a].reason == VOICEMAIL || at[a].reason == INSTRUCTIONS_FAILED || \
   at[a].reason == OUTCOME_UNKNOWN)
#ifdef A_LATE_REFUSAL_IS_REFUSED
#define IS_REFUSAL(a, what) false
#else
#define IS_REFUSAL(a, what) (what == OPTED_OUT && at[a].outcome != OPTED_OUT && \
                             (MAY_BE_REPORTED(a) || MAY_HAVE_BEEN_ANSWERED(a)))
#endif

/* Only a report that can count is sent: another one would only delay the steps that wait for an empty inbox. A report
 * that waits is not sent again: it would have the same answer. */
#define MAY_COUNT(a) \
  (!is_deleted && IS_NEW(a) && (at[a].state == IN_PROGRESS || at[a].awaited || at[a].reason == OUTCOME_UNKNOWN))
#ifdef OPT_OUTS
#define OTHER_MAY_COUNT(a) (at[a].outcome != OPTED_OUT)
#else
#define OTHER_MAY_COUNT(a) MAY_COUNT(a)
#endif
#define SENDS_CALL_BACK(a) (at[a].was_answered && MAY_COUNT(a) && !(inbox ?? [REPORT_CALL_BACK, eval(a)]))
#define SENDS_OTHER(a) (at[a].was_answered && OTHER_MAY_COUNT(a) && !(inbox ?? [REPORT_OTHER, eval(a)]))
#define SENDS(a) (SENDS_CALL_BACK(a) || SENDS_OTHER(a))

/* A report of each of two outcomes for each call, in any order, in the call or later. */
active proctype VoiceServer() {
  byte a = 0;
end_voice:
  do
#ifdef LATE
  :: atomic { has_key -> has_key = false }
#endif
  :: atomic {
       nfull(inbox) && HAS_KEY && (SENDS(1) || SENDS(2) || SENDS(ATTEMPTS)) ->
       if :: SENDS(1) -> a = 1 :: SENDS(2) -> a = 2 :: SENDS(ATTEMPTS) -> a = ATTEMPTS fi;
       if
       :: SENDS_CALL_BACK(a) -> accepted(REPORT_CALL_BACK, a)
       :: SENDS_OTHER(a) -> accepted(REPORT_OTHER, a);
#ifdef OTHERS
          if :: MAY_BE_REPORTED(a) || MAY_HAVE_BEEN_ANSWERED(a) -> is_refused = true :: else -> skip fi
#endif
       fi;
       if :: MAY_BE_REPORTED(a) && !at[a].was_reported -> at[a].in_time = true :: else -> skip fi;
       a = 0
     }
  od
}

#ifdef AN_INVOKE_PASSES_THE_WAIT
#define IS_BUSY ((HAS_OPEN && at[made].state == IN_PROGRESS) || !NONE_IS_LOOKED_FOR)
#else
#define IS_BUSY ((HAS_OPEN && at[made].state == IN_PROGRESS) || !NONE_IS_LOOKED_FOR || HAS_AWAITED)
#endif

active proctype Caller() {
  byte times = 0;
end_caller:
  do
  :: atomic {
       times < COMMANDS && nfull(inbox) ->
       times++;
       if
#ifndef OTHERS
       :: !IS_BUSY -> accepted(INVOKE, 0)
#endif
       :: accepted(DELETE_INTERVIEW, 0)
       fi
     }
  od
}

inline applies_report(a, what) {
  if
  :: !is_deleted && ((IS_NEW(a) && MAY_BE_REPORTED(a)) || IS_REFUSAL(a, what)) ->
     if
     :: at[a].awaited -> reported(a, what); decides(a)
     :: !at[a].awaited && at[a].state == IN_PROGRESS ->
        reported(a, what);
#ifdef A_REPORT_DECIDES_AT_ONCE
        decides(a)
#else
        skip
#endif
     :: else ->
        reported(a, what);
        if :: what == OPTED_OUT -> refuses(a) :: else -> skip fi;
#ifdef LATE
        ending = at[a].hung_up /* its end has waited for the report */
#endif
     fi
#ifndef A_DELETION_FORGETS_A_REFUSAL
  :: is_deleted && IS_REFUSAL(a, what) -> reported(a, what) /* for other interviews of the number; nothing follows */
#endif
  :: else ->
     assert(!at[a].in_time || is_deleted); /* accepted in time, and refused: a retry rings the person */
     assert(!IS_LIVE(a) || at[a].heard != TALKS || at[a].outcome != NO_OUTCOME || is_deleted);
     assert(what != OPTED_OUT || at[a].outcome == OPTED_OUT || !MAY_HAVE_BEEN_ANSWERED(a))
  fi
}

inline invokes() {
  if
  :: is_deleted || status == IS_COMPLETED || status == IS_CANCELLED || IS_BUSY || made == ATTEMPTS -> skip
  :: else ->
     if :: HAS_OPEN -> cancelled(made, REPLACED) :: else -> skip fi;
     status = IS_SCHEDULED; made++; created(made)
  fi
}

inline deletes() {
  if :: HAS_OPEN && at[made].state == PENDING -> cancelled(made, INTERVIEW_DELETED) :: else -> skip fi;
  if :: status == IS_SCHEDULED -> status = IS_CANCELLED :: else -> skip fi;
  is_deleted = true
}

active proctype Apply() {
  byte a = 0, other = 0;
  mtype:kind what = NO_KIND;
#ifdef LATE
  bool ending = false;
  mtype:reason why = NO_REASON;
  atomic { made = 1; created(1); claimed(1); at[1].leg = RINGS; proof_missing(1); given_up(1) };
#else
  atomic { made = 1; created(1) };
#endif
end_apply:
  do
  :: atomic {
       inbox ? what, a ->
       if
       :: what == REPORT_FINISHED -> applies_report(a, FINISHED)
       :: what == REPORT_CALL_BACK -> applies_report(a, CALL_BACK)
       :: what == REPORT_OPTED_OUT -> applies_report(a, OPTED_OUT)
       :: what == REPORT_TECHNICAL -> applies_report(a, TECHNICAL)
       :: what == INVOKE -> invokes()
       :: what == DELETE_INTERVIEW -> deletes()
       fi;
#ifdef LATE
       ends_if_it_is_over(a);
#endif
       what = NO_KIND; a = 0
     }
  od
}

/* When nothing else must happen, no interview waits for a call that never comes, and no call for a decision. Reports,
 * commands, callbacks and calls of another interview need not happen. */
#define IS_STUCK(a) (at[a].state == IN_PROGRESS || at[a].awaited || at[a].hung_up)
#define IS_QUIET(a) (!IS_LIVE(a) && !IS_TO_SETTLE(a))

active proctype Judge() {
end_judge:
  do
  :: atomic {
       made > 0 && empty(inbox) && !IS_CLAIMABLE && !IS_LINE_TAKEN &&
       IS_QUIET(1) && IS_QUIET(2) && IS_QUIET(ATTEMPTS) ->
       assert(!IS_STUCK(1) && !IS_STUCK(2) && !IS_STUCK(ATTEMPTS));
       assert(status != IS_SCHEDULED || made == ATTEMPTS || HAS_OPTED_OUT);
       assert(status == IS_SCHEDULED || !HAS_OPEN)
     }
  od
}
