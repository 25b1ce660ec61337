/* cluster.c - one client: which gateway, sessions, resending, time limits, dispatch.
 *
 * The connection is made when the first request needs it and kept.  When it is lost the next
 * address is tried at once; after a round of failures there is a pause that grows.  A new
 * connection begins with HELLO (client id, session); requests follow when it is answered, so that a
 * gateway that takes connections and does not serve them has none of ours.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/util.h"
#include "lib/client/client.h"
#include "lib/env/linux.h"

#define CONNECT_NS	(1000 * MSEC) /* one attempt, when there are others to try */
#define CONNECT_LONE_NS (5000 * MSEC) /* one attempt, when there are none */
#define HELLO_NS	(1000 * MSEC)
#define ALIVE_NS	(700 * MSEC) /* silent for so long: asked; once more: left (2.1 s at most) */
#define BACKOFF_NS	(50 * MSEC)
#define BACKOFF_MAX_NS	(1000 * MSEC)
#define PASS_NS		(100 * MSEC)
#define CONNECT_MS	5000u /* default of sd_cluster_set_connect_timeout() */

static void link_try(struct sd_cluster *c);
static void cluster_kick(struct sd_cluster *c);
static void link_failed(struct sd_cluster *c, int err, const char *fmt)
	__attribute__((format(printf, 3, 0)));

#define of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static const char *errno_text(int err)
{
	const char *t = strerrordesc_np(err < 0 ? -err : err);

	return t ? t : "Unknown error";
}

const char *sd_strerror(int err)
{
	if (!SD_ERR_RESULT(err))
		return errno_text(err);
	const char *t = sd_result_text((uint32_t)SD_ERR_RESULT(err));
	return t ? t : "Unknown result of the cluster";
}

void cluster_error(struct sd_cluster *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->error, sizeof(c->error), fmt, ap);
	va_end(ap);
}

const char *sd_last_error(struct sd_cluster *c)
{
	return c->error;
}

/* ---- jobs: what has a time limit ---- */

static uint64_t job_until(const struct sd_cluster *c, const struct job *j)
{
	uint64_t first = c->ever || j->direct || !c->connect_timeout_ms || !j->start
				 ? UINT64_MAX
				 : j->start + c->connect_timeout_ms * MSEC;

	return j->deadline < first ? j->deadline : first;
}

static void job_arm(struct sd_cluster *c, const struct job *j)
{
	uint64_t until = job_until(c, j);

	if (until != UINT64_MAX && (!c->job_timer.heap_idx || c->job_timer.at_ns > until))
		env_timer_set(c->env, &c->job_timer, until);
}

void job_start(struct sd_cluster *c, struct job *j)
{
	cds_list_add_tail(&j->node, &c->jobs);
	j->deadline = UINT64_MAX;
	j->start = 0;
	if (!c->timeout_ms && c->ever)
		return;
	j->start = env_now(c->env);
	if (c->timeout_ms)
		j->deadline = j->start + c->timeout_ms * MSEC;
	job_arm(c, j);
}

void job_end(struct job *j)
{
	cds_list_del(&j->node);
}

/* Stop the jobs that must be over by @now, or all. */
static void jobs_stop(struct sd_cluster *c, uint64_t now, bool all, int err)
{
	struct job *j, *next;
	CDS_LIST_HEAD(over);

	cds_list_for_each_entry_safe (j, next, &c->jobs, node) {
		if (all ? j->direct : job_until(c, j) > now)
			continue;
		cds_list_del(&j->node);
		cds_list_add_tail(&j->node, &over);
	}
	while (!cds_list_empty(&over)) {
		j = cds_list_first_entry(&over, struct job, node);
		cds_list_del(&j->node);
		j->stop(j, err);
	}
}

static void on_job_timer(struct env_timer *t)
{
	struct sd_cluster *c = of(t, struct sd_cluster, job_timer);
	uint64_t first = UINT64_MAX;
	struct job *j;

	if (!*c->error || c->state == LINK_UP)
		cluster_error(c, "get an answer from %s: %s", c->gw[c->cur].name,
			      errno_text(ETIMEDOUT));
	jobs_stop(c, env_now(c->env), false, -ETIMEDOUT);
	cds_list_for_each_entry (j, &c->jobs, node) {
		uint64_t until = job_until(c, j);
		if (until < first)
			first = until;
	}
	if (first != UINT64_MAX)
		env_timer_set(c->env, t, first);
}

/* ---- the connection ---- */

static void link_timer_set(struct sd_cluster *c, uint64_t ns)
{
	env_timer_set(c->env, &c->link_timer, env_now(c->env) + ns);
}

/* No address is left that could be there: say so rather than wait. */
static bool link_hopeless(const struct sd_cluster *c)
{
	return !c->ever && c->refused >= c->nr_gw;
}

/* HELLO and the probe belong to one connection. */
static void link_drop_own(struct sd_cluster *c)
{
	if (c->hello.place != RQ_IDLE && !conn_take(&c->conn, &c->hello))
		assert(!"HELLO on the wire after a reset");
	if (c->ping.place != RQ_IDLE && !conn_take(&c->conn, &c->ping))
		assert(!"probe on the wire after a reset");
}

static void count_garbage(struct sd_cluster *c)
{
	struct rq *rq, *next;

	cds_list_for_each_entry_safe (rq, next, &c->conn.sent, node) {
		if (++rq->garbage > GARBAGE_MAX * c->nr_gw)
			rq->once = true; /* fails with the reset */
	}
}

/* One round over all addresses costs nothing, then each round waits longer. */
static uint64_t backoff(const struct sd_cluster *c)
{
	unsigned round = (c->fails - 1) / c->nr_gw;

	if (!round || (c->fails - 1) % c->nr_gw)
		return 0;
	uint64_t ns = BACKOFF_NS << (round < 6 ? round - 1 : 5);
	return ns < BACKOFF_MAX_NS ? ns : BACKOFF_MAX_NS;
}

/* The present address does not do: on to the next.  @fmt: what failed, with %s for the address and
 * %s for the reason. */
static void link_failed(struct sd_cluster *c, int err, const char *fmt)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	cluster_error(c, fmt, c->gw[c->cur].name, errno_text(err));
#pragma GCC diagnostic pop
	if (err == -EPROTO)
		count_garbage(c);
	env_timer_del(c->env, &c->link_timer);
	env_defer_del(c->env, &c->leave);
	bool gone = c->state == LINK_CONNECTING && err != -ETIMEDOUT && err != -ECONNRESET;
	c->state = LINK_IDLE;
	c->cur = (c->cur + 1) % c->nr_gw;
	c->fails++;
	/* who took the connection and broke it is there: it is tried again */
	c->refused = gone || err == -EPROTO ? c->refused + 1 : 0;
	conn_reset(&c->conn, err == -EPROTO ? err : -ECONNRESET);
	link_drop_own(c);
	if (c->closing)
		return;
	if (link_hopeless(c)) {
		c->refused = 0;
		jobs_stop(c, 0, true, err);
	}
	if (cds_list_empty(&c->conn.queue) || c->state != LINK_IDLE)
		return;
	c->state = LINK_BACKOFF;
	link_timer_set(c, backoff(c));
}

static void link_try(struct sd_cluster *c)
{
	c->state = LINK_CONNECTING;
	link_timer_set(c, c->nr_gw > 1 ? CONNECT_NS : CONNECT_LONE_NS);
	int r = conn_connect(&c->conn, &c->gw[c->cur].addr);
	if (r < 0)
		link_failed(c, r, "connect to %s: %s");
}

static void on_up(struct conn *k)
{
	struct sd_cluster *c = of(k, struct sd_cluster, conn);

	c->state = LINK_HELLO;
	c->session++;
	c->hello_msg = (struct client_hello){.client_id = c->client_id,
					     .session = c->session,
					     .version = 1};
	k->hold = true;
	conn_add_first(k, &c->hello);
	conn_kick(k);
	env_timer_del(c->env, &c->link_timer);
	if (c->nr_gw > 1)
		link_timer_set(c, HELLO_NS);
}

static void on_hello(struct rq *rq, int err)
{
	struct sd_cluster *c = of(rq, struct sd_cluster, hello);
	uint32_t res = rq->rsp.result;

	if (err)
		return;
	/* any other refusal is a server that does not know sessions */
	if ((res == SD_RES_KILLED || res == SD_RES_SHUTDOWN) && c->nr_gw > 1 &&
	    c->fails < c->nr_gw) {
		link_failed(c, -ESHUTDOWN, "use %s: the daemon is stopping (%s)");
		return;
	}
	c->state = LINK_UP;
	c->served = c->conn.replies;
	c->ever = true;
	c->refused = 0;
	c->conn.hold = false;
	env_timer_del(c->env, &c->link_timer);
	cluster_kick(c);
}

static void on_lost(struct conn *k, int err, const char *why)
{
	struct sd_cluster *c = of(k, struct sd_cluster, conn);

	if (c->served != k->replies && c->state == LINK_UP)
		c->fails = c->refused = 0; /* it has served us */
	if (why)
		link_failed(c, err, "understand what %s answers: %s");
	else if (c->state == LINK_CONNECTING)
		link_failed(c, err, "connect to %s: %s");
	else
		link_failed(c, err, "keep the connection to %s: %s");
}

static const struct conn_ops cluster_conn_ops = {on_up, on_lost};

static void on_ping(struct rq *rq, int err)
{
}

/* The gateway has unanswered requests: has anything moved since the last look?  If not it is asked,
 * and must say something until the next. */
static void link_look(struct sd_cluster *c)
{
	struct conn *k = &c->conn;
	bool asked = c->ping.place != RQ_IDLE, heard = c->received != k->received;

	if (!conn_inflight(k))
		return; /* armed again with the next request */
	if (asked && !heard) {
		link_failed(c, -ETIMEDOUT, "get an answer from %s: %s");
		return;
	}
	if (heard)
		c->fails = 0;
	if (!asked && c->moved == k->moved) {
		conn_add_first(k, &c->ping);
		conn_kick(k);
	}
	c->received = k->received;
	c->moved = k->moved;
	link_timer_set(c, ALIVE_NS);
}

static void on_link_timer(struct env_timer *t)
{
	struct sd_cluster *c = of(t, struct sd_cluster, link_timer);

	switch (c->state) {
	case LINK_BACKOFF: link_try(c); break;
	case LINK_CONNECTING: link_failed(c, -ETIMEDOUT, "connect to %s: %s"); break;
	case LINK_HELLO: link_failed(c, -ETIMEDOUT, "get an answer from %s: %s"); break;
	case LINK_UP: link_look(c); break;
	case LINK_IDLE: break;
	}
}

static void on_leave(struct env_defer *d)
{
	struct sd_cluster *c = of(d, struct sd_cluster, leave);

	if (c->state == LINK_UP)
		link_failed(c, -ESHUTDOWN,
			    "use %s: the daemon is stopping or not yet in the cluster (%s)");
}

/* ---- requests ---- */

/* Something was queued. */
static void cluster_kick(struct sd_cluster *c)
{
	if (c->closing)
		return;
	if (c->state == LINK_IDLE && !cds_list_empty(&c->conn.queue))
		link_try(c);
	if (c->state != LINK_UP)
		return;
	if (c->nr_gw > 1 && !c->link_timer.heap_idx)
		link_timer_set(c, ALIVE_NS);
	if (!c->corked)
		conn_kick(&c->conn);
}

void cluster_submit(struct sd_cluster *c, struct rq *rq)
{
	conn_add(&c->conn, rq);
	cluster_kick(c);
}

static void later_add(struct sd_cluster *c, struct rq *rq)
{
	rq->place = RQ_LATER;
	rq->at = env_now(c->env) + PASS_NS;
	cds_list_add_tail(&rq->node, &c->later);
	if (!c->later_timer.heap_idx)
		env_timer_set(c->env, &c->later_timer, rq->at);
}

static void on_later(struct env_timer *t)
{
	struct sd_cluster *c = of(t, struct sd_cluster, later_timer);
	uint64_t now = env_now(c->env);

	while (!cds_list_empty(&c->later)) {
		struct rq *rq = cds_list_first_entry(&c->later, struct rq, node);
		if (rq->at > now) {
			env_timer_set(c->env, t, rq->at);
			return;
		}
		cds_list_del(&rq->node);
		rq->place = RQ_IDLE;
		cluster_submit(c, rq);
	}
}

bool cluster_retry(struct sd_cluster *c, struct rq *rq)
{
	if (c->closing || rq->tries >= PASS_TRIES)
		return false;
	switch (rq->rsp.result) {
	case SD_RES_AGAIN:
	case SD_RES_STARTUP:
	case SD_RES_NETWORK_ERROR:
	case SD_RES_COLLECTING_CINFO:
	case SD_RES_OLD_NODE_VER:
	case SD_RES_NEW_NODE_VER: break;
	case SD_RES_KILLED:
	case SD_RES_SHUTDOWN:
		/* this daemon goes, the others may not */
		if (c->nr_gw < 2 || rq->tries >= 2 * c->nr_gw)
			return false;
		env_defer(c->env, &c->leave);
		break;
	case SD_RES_WAIT_FOR_FORMAT: /* perhaps a new node: each of the others is asked once */
		if (rq->tries + 1u >= c->nr_gw)
			return false;
		env_defer(c->env, &c->leave);
		break;
	default: return false;
	}
	rq->tries++;
	later_add(c, rq);
	return true;
}

bool cluster_retry_io(struct sd_cluster *c, struct rq *rq)
{
	uint32_t result = rq->rsp.result;

	if (result != SD_RES_WAIT_FOR_FORMAT && result != SD_RES_WAIT_FOR_JOIN)
		return cluster_retry(c, rq);
	if (c->closing || rq->tries >= PASS_TRIES)
		return false;
	if (c->nr_gw > 1)
		env_defer(c->env, &c->leave);
	rq->tries++;
	later_add(c, rq);
	return true;
}

void cluster_cancel(struct sd_cluster *c, struct rq *rq)
{
	bool queued;

	if (rq->place == RQ_IDLE)
		return;
	if (rq->place == RQ_LATER) {
		cds_list_del(&rq->node);
		rq->place = RQ_IDLE;
		return;
	}
	if (conn_take(&c->conn, rq))
		return;
	rq->once = false; /* Invariant 3 */
	link_failed(c, -ETIMEDOUT, "get an answer from %s: %s");
	queued = conn_take(&c->conn, rq);
	assert(queued);
}

/* ---- dispatch ---- */

static void callbacks_run(struct sd_cluster *c, int *nr)
{
	while (!cds_list_empty(&c->finished)) {
		struct cds_list_head *n = c->finished.next;
		cds_list_del(n);
		io_run_callback(c, n);
		++*nr;
	}
}

static void on_finished(struct env_defer *d)
{
	struct sd_cluster *c = of(d, struct sd_cluster, finished_defer);
	int nr = 0;

	/* on our own env this only wakes: sd_dispatch() runs them */
	if (c->foreign_wait)
		callbacks_run(c, &nr);
}

void cluster_finished(struct sd_cluster *c, struct cds_list_head *node)
{
	cds_list_add_tail(node, &c->finished);
	if (!c->corked || c->foreign_wait)
		env_defer(c->env, &c->finished_defer);
}

bool cluster_cork(struct sd_cluster *c)
{
	return TAKE(c->corked, true);
}

void cluster_uncork(struct sd_cluster *c, bool was)
{
	c->corked = was;
	if (was)
		return;
	conn_flush(&c->conn);
	if (!cds_list_empty(&c->finished))
		env_defer(c->env, &c->finished_defer);
}

/* Returns the number of callbacks. */
static int cluster_turn(struct sd_cluster *c, int timeout_ms)
{
	int nr = 0;

	conn_flush(&c->conn);
	if (!cds_list_empty(&c->finished))
		timeout_ms = 0;
	c->corked = false;
	if (c->foreign_wait)
		c->foreign_wait(c->foreign_arg);
	else
		env_linux_turn(c->env, timeout_ms);
	c->corked = true;
	callbacks_run(c, &nr);
	return nr;
}

void cluster_pump(struct sd_cluster *c)
{
	cluster_turn(c, -1);
}

int sd_wait(struct sd_cluster *c, int timeout_ms)
{
	int nr = 0;

	if (c->foreign_wait)
		return 0; /* its owner turns the env */
	bool was = cluster_cork(c);
	nr = cluster_turn(c, timeout_ms);
	cluster_uncork(c, was);
	return nr;
}

int sd_dispatch(struct sd_cluster *c)
{
	return sd_wait(c, 0);
}

int sd_cluster_fd(struct sd_cluster *c)
{
	return c->foreign_wait ? -ENOTSUP : env_linux_fd(c->env);
}

/* ---- blocking calls ---- */

static void call_over(struct call *call, int err)
{
	job_end(&call->job);
	call->over = true;
	call->err = err;
}

static void on_call(struct rq *rq, int err)
{
	struct call *call = of(rq, struct call, rq);

	if (!err && !call->raw && cluster_retry(call->c, rq))
		return;
	call_over(call, err);
}

static void call_stop(struct job *j, int err)
{
	struct call *call = of(j, struct call, job);

	cluster_cancel(call->c, &call->rq);
	call->over = true;
	call->err = err;
}

int cluster_call(struct sd_cluster *c, struct call *call)
{
	if (c->closing)
		return -ECANCELED;
	call->c = c;
	call->over = false;
	call->rq.done = on_call;
	call->rq.place = RQ_IDLE;
	call->job.stop = call_stop;
	bool was = cluster_cork(c);
	job_start(c, &call->job);
	if (call->limit_ms) {
		uint64_t limit = env_now(c->env) + call->limit_ms * MSEC;
		if (limit < call->job.deadline)
			call->job.deadline = limit;
		job_arm(c, &call->job);
	}
	cluster_submit(c, &call->rq);
	while (!call->over)
		cluster_pump(c);
	cluster_uncork(c, was);
	return call->err;
}

/* ---- raw requests ---- */

/* Carried out twice it does the same, and an answer that was lost can be had again. */
static bool op_repeatable(uint8_t op)
{
	switch (op) {
	case SD_OP_CREATE_AND_WRITE_OBJ:
	case SD_OP_READ_OBJ:
	case SD_OP_WRITE_OBJ:
	case SD_OP_DISCARD_OBJ:
	case SD_OP_RELEASE_VDI:
	case SD_OP_GET_VDI_INFO:
	case SD_OP_READ_VDIS:
	case SD_OP_FLUSH_VDI:
	case SD_OP_GET_CLUSTER_DEFAULT:
	case SD_OP_GET_NODE_LIST:
	case SD_OP_STAT_SHEEP:
	case SD_OP_STAT_CLUSTER:
	case SD_OP_GET_STORE_LIST:
	case SD_OP_STAT_RECOVERY:
	case SD_OP_GET_OBJ_LIST:
	case SD_OP_GET_EPOCH:
	case SD_OP_GET_VDI_COPIES:
	case SD_OP_MD_INFO:
	case SD_OP_GET_HASH:
	case SD_OP_STAT:
	case SD_OP_GET_LOGLEVEL:
	case SD_OP_EXIST:
	case SD_OP_CLUSTER_INFO:
	case SD_OP_OIDS_EXIST:
	case SD_OP_READ_DEL_VDIS:
	case SD_OP_GET_RECOVERY:
	case SD_OP_GET_VNODES: return true;
	default: return false;
	}
}

struct raw {
	struct iovec out, in;
};

static int raw_init(struct rq *rq, struct raw *raw, const struct sd_req *req, const void *out,
		    void *in, const size_t *in_len)
{
	bool write = req->flags & SD_FLAG_WRITE;
	size_t room = in && in_len ? *in_len : 0;

	*rq = (struct rq){.req = *req};
	if (write && req->data_length && !out)
		return -EINVAL;
	if ((!write || (req->flags & SD_FLAG_PIGGYBACK)) && req->data_length > room)
		return -EINVAL;
	if (write) {
		raw->out = (struct iovec){(void *)(uintptr_t)out, req->data_length};
		rq->out = (struct seg){&raw->out, 0, req->data_length};
	}
	raw->in = (struct iovec){in, room};
	rq->in = (struct seg){&raw->in, 0, room};
	return 0;
}

static void raw_result(const struct rq *rq, size_t *in_len, struct sd_rsp *rsp)
{
	*rsp = rq->rsp;
	if (in_len)
		*in_len = rq->rsp.data_length;
}

int sd_request(struct sd_cluster *c, const struct sd_req *req, const void *out, void *in,
	       size_t *in_len, struct sd_rsp *rsp)
{
	struct call call = {.raw = true};
	struct raw raw;
	int r = raw_init(&call.rq, &raw, req, out, in, in_len);

	if (r < 0)
		return r;
	call.rq.once = !op_repeatable(req->opcode);
	r = cluster_call(c, &call);
	if (!r)
		raw_result(&call.rq, in_len, rsp);
	return r;
}

/* A request with a connection of its own. */
struct direct {
	struct conn conn;
	struct rq rq;
	struct job job;
	struct sd_cluster *c;
	struct gateway gw[GATEWAYS_MAX];
	bool over;
	int err;
};

static void direct_end(struct direct *d, int err, const char *what)
{
	if (what)
		cluster_error(d->c, "%s %s: %s", what, d->gw[0].name, errno_text(err));
	d->rq.once = false; /* what is left of it comes back here */
	conn_reset(&d->conn, -ECONNRESET);
	if (d->rq.place != RQ_IDLE)
		conn_take(&d->conn, &d->rq);
	d->over = true;
	d->err = err;
}

static void on_direct_up(struct conn *k)
{
	struct direct *d = of(k, struct direct, conn);

	d->job.deadline = UINT64_MAX;
	if (d->c->timeout_ms)
		d->job.deadline = env_now(d->c->env) + d->c->timeout_ms * MSEC;
	job_arm(d->c, &d->job);
	conn_kick(k);
}

static void on_direct_lost(struct conn *k, int err, const char *why)
{
	struct direct *d = of(k, struct direct, conn);

	job_end(&d->job);
	direct_end(d, err, k->up ? "get an answer from" : "connect to");
}

static const struct conn_ops direct_conn_ops = {on_direct_up, on_direct_lost};

static void on_direct(struct rq *rq, int err)
{
	struct direct *d = of(rq, struct direct, rq);

	job_end(&d->job);
	direct_end(d, err, NULL);
}

static void direct_stop(struct job *j, int err)
{
	struct direct *d = of(j, struct direct, job);

	direct_end(d, err, d->conn.up ? "get an answer from" : "connect to");
}

static int direct_run(struct direct *d)
{
	struct sd_cluster *c = d->c;

	d->rq.done = on_direct;
	d->job.direct = true;
	d->job.stop = direct_stop;
	bool was = cluster_cork(c);
	int r = conn_connect(&d->conn, &d->gw[0].addr);
	if (r < 0) {
		cluster_error(c, "connect to %s: %s", d->gw[0].name, errno_text(r));
	} else {
		job_start(c, &d->job);
		if (c->connect_timeout_ms) {
			d->job.deadline = env_now(c->env) + c->connect_timeout_ms * MSEC;
			job_arm(c, &d->job);
		}
		conn_add(&d->conn, &d->rq);
		while (!d->over)
			cluster_pump(c);
		r = d->err;
	}
	cluster_uncork(c, was);
	return r;
}

int sd_request_to(struct sd_cluster *c, const char *address, const struct sd_req *req,
		  const void *out, void *in, size_t *in_len, struct sd_rsp *rsp)
{
	CLEANUP(freep) struct direct *d = calloc(1, sizeof(*d));
	struct raw raw;

	if (!d)
		return -ENOMEM;
	d->c = c;
	int r = raw_init(&d->rq, &raw, req, out, in, in_len);
	if (!r)
		r = gateways_parse(address, d->gw);
	if (r < 0)
		return r;
	r = conn_init(&d->conn, c->env, &direct_conn_ops);
	if (r < 0)
		return r;
	r = direct_run(d);
	conn_done(&d->conn);
	if (!r)
		raw_result(&d->rq, in_len, rsp);
	return r;
}

/* ---- life ---- */

void sd_cluster_set_timeout(struct sd_cluster *c, unsigned ms)
{
	c->timeout_ms = ms;
}

void sd_cluster_set_connect_timeout(struct sd_cluster *c, unsigned ms)
{
	c->connect_timeout_ms = ms;
}

static void cluster_init(struct sd_cluster *c, struct env *env)
{
	c->env = env;
	c->connect_timeout_ms = CONNECT_MS;
	CDS_INIT_LIST_HEAD(&c->jobs);
	CDS_INIT_LIST_HEAD(&c->later);
	CDS_INIT_LIST_HEAD(&c->finished);
	CDS_INIT_LIST_HEAD(&c->vdis);
	CDS_INIT_LIST_HEAD(&c->idle_ops);
	c->link_timer.fn = on_link_timer;
	c->job_timer.fn = on_job_timer;
	c->later_timer.fn = on_later;
	c->leave.fn = on_leave;
	c->finished_defer.fn = on_finished;
	do
		c->client_id = env_random64(env);
	while (!c->client_id);
	c->hello_iov = (struct iovec){&c->hello_msg, sizeof(c->hello_msg)};
	c->hello = (struct rq){
		.req = {.proto_ver = SD_INTERNAL_PROTO_VER,
			.opcode = SD_OP_CLIENT_HELLO,
			.flags = SD_FLAG_WRITE,
			.data_length = sizeof(c->hello_msg)},
		.out = {&c->hello_iov, 0, sizeof(c->hello_msg)},
		.done = on_hello,
		.exact = true,
		.urgent = true,
	};
	c->ping = (struct rq){
		.req = {.proto_ver = 1, .opcode = SD_OP_GET_CLUSTER_DEFAULT},
		.done = on_ping,
		.exact = true,
		.urgent = true,
	};
}

int client_open_on(struct env *env, void (*wait)(void *arg), void *arg, const char *gateways,
		   struct sd_cluster **ret)
{
	struct sd_cluster *c = calloc(1, sizeof(*c));
	int r = c ? gateways_parse(gateways, c->gw) : -ENOMEM;

	if (r > 0) {
		c->nr_gw = (unsigned)r;
		r = conn_init(&c->conn, env, &cluster_conn_ops);
	}
	if (r < 0) {
		free(c);
		return r;
	}
	cluster_init(c, env);
	c->foreign_wait = wait;
	c->foreign_arg = arg;
	*ret = c;
	return 0;
}

int sd_cluster_open(const char *gateways, struct sd_cluster **ret)
{
	const struct env_linux_conf conf = {.nr_workers = 0, .aio_depth = 0};
	struct env *env;
	int r = env_linux_new(&conf, &env);

	if (r < 0)
		return r;
	r = client_open_on(env, NULL, NULL, gateways, ret);
	if (r < 0)
		env_linux_free(env);
	return r;
}

void sd_cluster_close(struct sd_cluster *c)
{
	int nr = 0;

	if (!c)
		return;
	c->closing = true;
	c->corked = true;
	conn_reset(&c->conn, -ECANCELED);
	link_drop_own(c);
	jobs_stop(c, 0, true, -ECANCELED);
	callbacks_run(c, &nr);
	assert(cds_list_empty(&c->vdis)); /* every volume is closed before */
	assert(!c->nr_ops && cds_list_empty(&c->later) && cds_list_empty(&c->jobs));
	conn_done(&c->conn);
	env_timer_del(c->env, &c->link_timer);
	env_timer_del(c->env, &c->job_timer);
	env_timer_del(c->env, &c->later_timer);
	env_defer_del(c->env, &c->leave);
	env_defer_del(c->env, &c->finished_defer);
	io_pools_free(c);
	if (!c->foreign_wait)
		env_linux_free(c->env);
	free(c);
}
