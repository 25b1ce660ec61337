/* owner_flush.c - the owner's flush: what is cached becomes durable, or its loss is told
 * (DESIGN 5.4, WHY B5). */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "sheep/gateway_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

/* Our clients may have outlived what they were told is in the kernel: say so, once: EIO.  0: it has
 * been told already. */
static int flush_lost(struct gw_op *op, struct gw_vdi *v)
{
	struct cmd cmd = {.type = CMD_CACHE_LOST, .vid = v->vid, .gen = v->gen, .on = false};
	int r = -EAGAIN;

	if (!v->telling) {
		v->telling = true;
		r = cluster_do(op->gw->sh->cluster, &cmd); /* ~ */
		v->telling = false;
		if (r == 0 && !v->gone && cmd.result == SD_RES_SUCCESS) {
			v->lost = false;
			return cmd.ret_lost && MARKED(own_cache_lost) ? SD_RES_EIO : SD_RES_SUCCESS;
		}
	}
	if (!op_over(op))
		gw_wait(op->gw, GW_LOOK_NS, "cache lost"); /* ~ */
	return op_over(op) ? -ECANCELED : -EAGAIN;
}

/* Did somebody see it lost?  He may be ahead of us in the order. */
static bool round_lost(const struct gw_fan *f)
{
	struct gw_call *k;

	cds_list_for_each_entry (k, &f->calls, node)
		if (k->finished && (k->c.rsp.flags & PEER_F_LOSSY))
			return true;
	return false;
}

/* One round over the members that may have something cached: all of them the first time in a
 * generation, since the owner before us may have left cached writes anywhere.  When it is suspect
 * they answer only once each arc of theirs has a replica in sync: till then nobody knows whether
 * what was cached is still there.  SUCCESS, or -EAGAIN: not all have answered. */
static int flush_round(struct gw_op *op, struct gw_vdi *v)
{
	struct gateway *gw = op->gw;
	struct gw_fan f;
	bool suspect = v->suspect && !PLANTED(flush_not_all), all = v->flush_all || suspect;
	bool index = v->index_cached, failed = false;
	uint64_t who[GW_WORDS];
	int r;

	if (all)
		MARK(own_flush_all);
	memcpy(who, v->unflushed, sizeof(who));
	memset(v->unflushed, 0, sizeof(v->unflushed));
	v->flush_all = v->index_cached = v->suspect = false;
	fan_init(&f, gw, v);
	for (unsigned m = 0; m < gw->view->nr; m++) {
		if (gw->view->members[m].gateway ||
		    (!all && !(who[m / 64] >> (m % 64) & 1) && MARKED(own_flush_some)))
			continue;
		if (PLANTED(flush_missed) && (int)m != gw->view->self)
			continue;
		struct gw_call *k = fan_call(&f, PEER_FLUSH, m);
		if (!k) {
			failed = true;
			break;
		}
		k->c.req.vid = v->vid;
		k->c.req.copies = v->copies;
		k->c.req.flags = suspect && MARKED(own_flush_suspect) ? PEER_F_IN_SYNC : 0;
		fan_submit(&f, k, &gw->view->members[m].inc);
	}
	r = fan_wait(&f, false); /* ~ */
	if (!r && (failed || f.nr_ok != f.nr || (f.nr && !gw_epoch_is(gw, f.epoch))) &&
	    MARKED(own_flush_failed))
		r = -EAGAIN;
	v->lost |= !r && round_lost(&f);
	fan_done(&f);
	if (r) { /* members have changed places: ask everybody */
		v->flush_all = v->suspect = true;
		v->index_cached |= index;
	}
	return r;
}

int owner_flush(struct gw_op *op, struct gw_vdi *v)
{
	struct gateway *gw = op->gw;
	uint64_t ticket = ++v->flush_want;

	/* Flushes that come together are one: a round covers all that came before it. */
	while (v->flush_done < ticket) {
		if (op_over(op))
			return -ECANCELED;
		if (v->gone)
			return -EAGAIN;
		if (v->flushing && MARKED(own_flush_joins)) {
			co_cond_wait(&v->flushed, "flush"); /* ~ */
			continue;
		}
		if (!gv_usable(v)) {
			gw_wait(gw, GW_PARK_NS, "flush: view"); /* ~ */
			continue;
		}
		uint64_t cover = v->flush_want;
		v->flushing = true;
		int r = flush_round(op, v); /* ~ */
		v->flushing = false;
		if (!r)
			v->flush_done = cover;
		co_cond_broadcast(&v->flushed);
		if (r == -EAGAIN && !v->gone && !gw->stopping)
			gw_wait(gw, GW_LOOK_NS, "flush"); /* ~ */
	}
	const struct vdi *t = cluster_vdi(gw->sh->cluster, v->vid);
	if (!op->internal && (v->lost || (t && t->cache_lost)))
		return flush_lost(op, v); /* ~ */
	return SD_RES_SUCCESS;
}
