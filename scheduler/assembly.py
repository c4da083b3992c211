"""Assembly: builds the use cases of a process from its settings, in one place, once."""

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Literal

from scheduler import failpoints, mail
from scheduler.carriers import interface, twilio
from scheduler.clock import Now, clock
from scheduler.domain.alarm import AlarmReceiver
from scheduler.domain.principal import SYSTEM
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.settings import MissingSetting, Settings, WrongSettings
from scheduler.use_cases import submit
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.apply_batches import ApplyBatches
from scheduler.use_cases.dial import Dial, Dialler
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations import erase as erasing
from scheduler.use_cases.operations import installation
from scheduler.use_cases.operations.erase import Purge
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.use_cases.operations.reconcile import Reconcile
from scheduler.use_cases.operations.stale_times import ScheduleRecomputer
from scheduler.use_cases.release import Release
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.resources.owners import Invitations, Notices
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared.alarms import AlarmPosts, AlarmStore
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.hints import Hints
from scheduler.use_cases.shared.voice_server import VoiceServerJudge

if TYPE_CHECKING:
    from scheduler.use_cases.webhooks.deliverer import Deliverer
    from scheduler.webhooks.sender import WebhookSender
    from scheduler.webhooks.sending import Encryption


def history_key(settings: Settings) -> bytes:
    """Derive the key with which every process seals the history of attempts."""
    return Hasher(settings.key_pepper.get_secret_value()).history_key()


def context_of(settings: Settings, database: Database) -> Context:
    """Build what the use cases on this database share."""
    return Context(
        database=database,
        hasher=Hasher(settings.key_pepper.get_secret_value()),
        policy=settings.policy,
        now=clock(settings.duecall_clock_offset_s),
    )


class WorkerUseCases:
    """The use cases of the workers. Only a dial worker has a dialler in addition."""

    def __init__(self, settings: Settings, hints: Hints) -> None:
        """Build them. Raises MissingSetting, WrongRole, DatabaseAway."""
        context = _worker_context(settings)
        database, hasher, now = context.database, context.hasher, context.now
        own_account_id = account_id(settings, database, now)
        self.database = database
        self.now = now
        self.messages = submit.Messages(Keys(database, hasher, now), submit.Submit(database, hints, now), hasher)
        self.apply = Apply(context, hints)
        self.batches = ApplyBatches(context, hints)
        voice = VoiceServerJudge(context, _voice_server(settings), own_account_id)
        self.hear = Hear(context, hints, carrier_callbacks(settings), voice)
        self.settle = Settle(context, _carrier_queries(settings, context), own_account_id, voice=voice)
        self.records = ScheduleRecomputer(context, hints)
        address = settings.app_url or settings.public_url
        self.invitations = Invitations(database, hasher, mailer(settings), address, now)
        self.purge = Purge(database, hints, now)
        self.erase = erasing.Erase(context, hints)
        self.erase_people = erasing.ErasePeople(context, hints)
        self.alarm_posts = AlarmPosts(database, alarm_receiver(settings), now)
        self.number_events = NumberEvents(database, hints, now)
        self.notices = Notices(database, mailer(settings), now)


def alarm_store(settings: Settings, role: Literal["api", "worker"]) -> AlarmStore:
    """Build the store of a process's alarms. It has its own connection, which is open only while alarms are stored."""
    return AlarmStore(Database(settings.database(role), pool_size=1), clock(settings.duecall_clock_offset_s))


def release(settings: Settings, hints: Hints) -> Release:
    """Build the use case of the clock. Raises MissingSetting, WrongRole, DatabaseAway."""
    context = _worker_context(settings)
    return Release(context, hints, account_id(settings, context.database, context.now))


def dialler(settings: Settings) -> Dialler:
    """Build the dialler of a dial worker. Raises MissingSetting, WrongRole, DatabaseAway."""
    from scheduler.carriers.twilio_calls import TwilioCallPlacer

    context = _worker_context(settings)
    policy, now = context.policy, context.now
    dial = Dial(context, account_id(settings, context.database, now))
    return Dialler(dial, TwilioCallPlacer(carrier(settings), policy), now)


def deliverer(settings: Settings, hints: Hints, worked: Callable[[], None] = lambda: None) -> "Deliverer":
    """Build the deliverer of a webhooks worker. Raises MissingSetting, WrongRole, DatabaseAway."""
    from scheduler.use_cases.webhooks.deliver import Deliver
    from scheduler.use_cases.webhooks.deliverer import Deliverer

    context = _worker_context(settings)
    deliver = Deliver(context.database, webhook_sender(settings), webhook_encryption(settings), context.now)
    return Deliverer(deliver, look=NumberEvents(context.database, hints, context.now).look, worked=worked)


def reconcile(settings: Settings, database: Database, actor: str) -> Reconcile:
    """Build the use case of an operator's command. Raises MissingSetting, DatabaseAway."""
    must_name_a_carrier(settings)
    context = context_of(settings, database)
    queries = _carrier_queries(settings, context)
    return Reconcile(context, queries, account_id(settings, database, context.now), actor)


def _worker_context(settings: Settings) -> Context:
    must_name_a_carrier(settings)
    failpoints.arm(settings.duecall_failpoint)
    return context_of(settings, Database(settings.database("worker"), bound=False, history_key=history_key(settings)))


def must_name_a_carrier(settings: Settings) -> None:
    """Raise MissingSetting if the carrier account or its token is missing."""
    if not settings.twilio_account_sid or not settings.auth_tokens:
        raise MissingSetting("TWILIO_ACCOUNT_SID" if settings.auth_tokens else "TWILIO_AUTH_TOKEN")


def must_find_the_calls(settings: Settings) -> None:
    """Raise WrongSettings if the carrier answers that TWILIO_API_URL and TWILIO_ACCOUNT_SID lead nowhere."""
    if not twilio.calls_are_there(carrier(settings)):
        raise WrongSettings(
            "TWILIO_API_URL or TWILIO_ACCOUNT_SID is wrong: the carrier returned 404 for the list of calls."
            " TWILIO_API_URL is the part before /2010-04-01, for example https://api.twilio.com."
        )


def check_worker_start(settings: Settings) -> None:
    """Raise an error if a worker or the clock could not work, and would then silently do nothing.

    Raises MissingSetting; RedisRefuses; DatabaseAway; WrongRole for a role from which row-level security hides every
    row; SchemaNotReady; WrongDatabase for the database of another installation.
    """
    from scheduler import start_checks  # with the client of Redis

    must_name_a_carrier(settings)
    start_checks.check_login(settings.redis)
    with closing(Database(settings.database("worker"), pool_size=1, bound=False)) as database:
        database.check_start()
        marks_of(settings, database).record()


def marks_of(settings: Settings, database: Database, actor: str = SYSTEM) -> installation.InstallationMarks:
    """Build the comparison of these settings with those that belong to the database."""
    hasher = Hasher(settings.key_pepper.get_secret_value())
    own = {installation.PEPPER: hasher.mark(installation.PEPPER)}
    if settings.twilio_account_sid:
        own["TWILIO_ACCOUNT_SID"] = hasher.mark("TWILIO_ACCOUNT_SID", settings.twilio_account_sid)
    if settings.is_production:  # in development each run may have another port
        own["PUBLIC_URL"] = hasher.mark("PUBLIC_URL", settings.public_url)
    return installation.InstallationMarks(database, own, clock(settings.duecall_clock_offset_s), actor)


def carrier(settings: Settings) -> twilio.TwilioAccount:
    return twilio.TwilioAccount(
        api_url=settings.twilio_api_url,
        account_sid=settings.twilio_account_sid,
        auth_tokens=settings.auth_tokens,
        public_url=settings.public_url,
        voice_url=settings.twilio_voice_url,
        ca_file=settings.ssl_cert_file,
    )


def carrier_callbacks(settings: Settings) -> interface.CarrierCallbacks:
    return twilio.TwilioCallbacks(carrier(settings))


def _carrier_queries(settings: Settings, context: Context) -> interface.CarrierQueries:
    from scheduler.carriers.twilio_queries import TwilioQueries

    return TwilioQueries(carrier(settings), context.policy)


def _voice_server(settings: Settings) -> interface.VoiceServer | None:
    """Build the probe of the voice server. None: it cannot be probed."""
    if not settings.voice_probe:
        return None
    from scheduler.carriers.voice_server import HttpVoiceServer

    return HttpVoiceServer(carrier(settings))


def alarm_receiver(settings: Settings) -> AlarmReceiver | None:
    """Build the receiver of new alarms. None: the settings name none."""
    url, secret = settings.alert_webhook_url, settings.alert_webhook_secret
    if url is None or secret is None:
        return None
    from scheduler.webhooks.sender import AlarmWebhook

    return AlarmWebhook(url.get_secret_value(), secret.get_secret_value())


def webhook_sender(settings: Settings) -> "WebhookSender":
    """Build the sender to receivers of partners. In development it also reaches this machine."""
    from scheduler.webhooks.sender import WebhookSender

    return WebhookSender(in_development=not settings.is_production)


def webhook_encryption(settings: Settings) -> "Encryption":
    """Build the encryption of webhooks' secrets."""
    from scheduler.webhooks.sending import Encryption

    return Encryption(settings.webhook_keys)


def mailer(settings: Settings) -> mail.Mailer:
    """Build the mailer: SMTP if a server is set, otherwise files in a folder."""
    name, address = settings.sender
    sender = mail.MailSender(name=name, address=address)
    server = settings.smtp_server
    if server is None:
        return mail.MailFolder(settings.mail_folder, sender)
    return mail.SmtpMailer(server, sender)


def account_id(settings: Settings, database: Database, now: Now) -> int:
    """Find the id of the carrier account in the settings, and store its limits if they have changed.

    Raises ClockWrong only if the row must change: otherwise a worker with a wrong clock starts, logs it and waits.
    """
    sid, per_second, max_calls = settings.twilio_account_sid, settings.twilio_cps, settings.twilio_max_calls
    database.clock_is_right()
    with database.reading() as stores:
        known = stores.carrier_accounts.as_set(sid, per_second, max_calls)
    if known is not None:
        return known
    with database.transaction() as stores:
        return stores.carrier_accounts.ensure(sid, per_second, max_calls, stores.instant(now))
