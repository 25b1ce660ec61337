/* cluster_rig.c - see cluster_rig.h. */
#include "config.h"

#include "tests/unit/cluster_rig.h"

/* ---- a group of nodes, as one machine sees it ---- */

struct incarnation inc(unsigned n, uint64_t start)
{
	struct incarnation i = {.start = start};

	memset(i.uuid, (int)n, sizeof(i.uuid));
	return i;
}

struct join join_of(unsigned n, uint64_t start)
{
	struct join j = {.attempt = 1, .random = n * 7919u, .time = 5000000000ull};

	j.m.inc = inc(n, start);
	j.m.addr.family = AF_INET;
	j.m.addr.ip[12] = 127;
	j.m.addr.ip[15] = 1;
	j.m.addr.port = (uint16_t)(7000 + n);
	j.m.zone = n;
	j.m.space = 1000;
	return j;
}

struct cs_out out;

void clear_out(void)
{
	cs_out_done(&out);
}

struct cs *found(const struct join *j)
{
	struct cs *s = cs_new();

	clear_out();
	assert_non_null(s);
	assert_int_equal(cs_found(s, j, &out), 0);
	return s;
}

void msg(struct cs *s, const struct incarnation *from, struct enc *e, struct cmd *reply)
{
	clear_out();
	assert_false(e->failed);
	assert_int_equal(cs_message(s, from, e->p, e->len, reply, &out), 0);
	free(e->p);
	*e = (struct enc){0};
}

uint32_t send_cmd(struct cs *s, unsigned n, uint64_t start, struct cmd *cmd)
{
	struct incarnation from = inc(n, start);
	struct enc e = {0};
	struct cmd reply;

	msg_begin(&e, cmd->type, 1);
	cmd_encode(&e, cmd);
	msg(s, &from, &e, &reply);
	assert_int_equal(reply.type, cmd->type);
	*cmd = reply;
	return reply.result;
}

void send_join(struct cs *s, const struct join *j)
{
	struct enc e = {0};
	struct cmd reply;

	msg_begin(&e, CMD_JOIN, 0);
	join_encode(&e, j);
	msg(s, &j->m.inc, &e, &reply);
}

/* The speaker has sent all of the state. */
void send_state(struct cs *s, const struct join *j)
{
	struct state_msg m = {
		.kind = STATE_FOR_JOINER, .target = j->m.inc, .attempt = j->attempt, .last = true};
	struct incarnation from = cs_speaker(s)->j.m.inc;
	struct enc e = {0};
	struct cmd reply;

	msg_begin(&e, CMD_STATE, 0);
	state_msg_encode(&e, &m);
	msg(s, &from, &e, &reply);
}

void send_ack(struct cs *s, unsigned from, unsigned joiner, uint64_t start)
{
	struct cmd cmd = {.type = CMD_ADMIT_ACK,
			  .target = inc(joiner, start),
			  .time = 9000000000ull,
			  .random = 77};

	assert_int_equal(send_cmd(s, from, 1, &cmd), OK);
}

void view(struct cs *s, const unsigned *n, unsigned nr)
{
	struct incarnation present[8];

	for (unsigned i = 0; i < nr; i++)
		present[i] = inc(n[i], 1);
	clear_out();
	assert_int_equal(cs_view(s, present, nr, NULL, 0, &out), 0);
}
struct cmd format_cmd(void)
{
	return (struct cmd){.type = CMD_FORMAT,
			    .ctime = CTIME,
			    .copies = 3,
			    .shift = 22,
			    .flags = SD_CLUSTER_AUTO_VNODES,
			    .store = "plain",
			    .time = 1700000000ull * 1000000000,
			    .random = 0x0807060504030201ull};
}

/* @nr nodes, 1 .. nr, in the lobby; formatted. */
struct cs *group(unsigned nr)
{
	struct join j = join_of(1, 1);
	struct cs *s = found(&j);
	struct cmd f = format_cmd();

	for (unsigned n = 2; n <= nr; n++) {
		j = join_of(n, 1);
		send_join(s, &j);
		send_state(s, &j);
	}
	assert_int_equal(send_cmd(s, 1, 1, &f), OK);
	return s;
}

uint32_t epoch(const struct cs *s)
{
	return cs_newest(s) ? cs_newest(s)->epoch : 0;
}

uint64_t hash(const struct cs *s)
{
	struct enc e = {0};

	cs_encode(s, &e);
	assert_false(e.failed);
	uint64_t h = sd_fnv1a64(e.p, e.len);
	free(e.p);
	return h;
}

struct cs *copy(const struct cs *s)
{
	struct enc e = {0};
	struct cs *c;

	cs_encode(s, &e);
	assert_int_equal(cs_decode(e.p, e.len, &c), 0);
	free(e.p);
	assert_true(hash(c) == hash(s));
	return c;
}

uint32_t create(struct cs *s, unsigned n, const char *name, struct cmd *ret)
{
	*ret = (struct cmd){.type = CMD_VDI_CREATE,
			    .size = 64u << 20,
			    .time = 5ull * 1000000000 + 42};
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	return send_cmd(s, n, 1, ret);
}

uint32_t create_visible(struct cs *s, unsigned n, const char *name, struct cmd *ret)
{
	uint32_t r = create(s, n, name, ret);

	if (r != OK)
		return r;
	return CMD(s, n, .type = CMD_VDI_VISIBLE, .vid = ret->ret_vid, .gen = ret->ret_gen);
}
