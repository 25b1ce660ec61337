/* addr.c - the list of gateways: HOST[:PORT], [IPV6]:PORT, unix:PATH. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/base/util.h"
#include "lib/client/client.h"

static void gateway_name(struct gateway *g)
{
	const struct net_addr *a = &g->addr;
	char ip[INET6_ADDRSTRLEN] = "";

	if (a->family == AF_UNIX) {
		snprintf(g->name, sizeof(g->name), "unix:%s", a->path);
		return;
	}
	inet_ntop(a->family, a->family == AF_INET ? a->ip + 12 : a->ip, ip, sizeof(ip));
	snprintf(g->name, sizeof(g->name), a->family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip,
		 a->port);
}

static void from_sockaddr(const struct sockaddr *sa, uint16_t port, struct gateway *g)
{
	g->addr = (struct net_addr){.family = sa->sa_family, .port = port};
	if (sa->sa_family == AF_INET)
		memcpy(g->addr.ip + 12, &((const struct sockaddr_in *)sa)->sin_addr, 4);
	else
		memcpy(g->addr.ip, &((const struct sockaddr_in6 *)sa)->sin6_addr, 16);
	gateway_name(g);
}

/* Every address of @host; returns their number or -errno. */
static int resolve(const char *host, uint16_t port, struct gateway *gw, int max)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list, *ai;
	union { /* one object of the larger size: from_sockaddr() looks at the family first */
		struct sockaddr sa;
		struct sockaddr_in in4;
		struct sockaddr_in6 in6;
	} u = {.in6 = {.sin6_family = AF_INET6}};
	int n = 0;

	if (inet_pton(AF_INET6, host, &u.in6.sin6_addr) == 1) {
		from_sockaddr(&u.sa, port, gw);
		return 1;
	}
	u.in4.sin_family = AF_INET;
	if (inet_pton(AF_INET, host, &u.in4.sin_addr) == 1) {
		from_sockaddr(&u.sa, port, gw);
		return 1;
	}
	int r = getaddrinfo(host, NULL, &hints, &list);
	if (r)
		return r == EAI_MEMORY ? -ENOMEM : -EHOSTUNREACH;
	for (ai = list; ai && n < max; ai = ai->ai_next)
		if (ai->ai_family == AF_INET || ai->ai_family == AF_INET6)
			from_sockaddr(ai->ai_addr, port, &gw[n++]);
	freeaddrinfo(list);
	return n ? n : -EHOSTUNREACH;
}

/* Cut @s into host and port, in place. */
static int split(char *s, char **host, uint16_t *port)
{
	char *p = NULL;
	uint64_t v;

	*port = SD_LISTEN_PORT;
	*host = s;
	if (*s == '[') {
		char *end = strchr(s, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		*host = s + 1;
		*end = 0;
		p = end[1] ? end + 2 : NULL;
	} else {
		char *colon = strchr(s, ':');
		if (colon && !strchr(colon + 1, ':')) { /* more than one: an IPv6 address */
			*colon = 0;
			p = colon + 1;
		}
	}
	if (p) {
		if (parse_u64(p, 1, 65535, &v) < 0)
			return -EINVAL;
		*port = (uint16_t)v;
	}
	return **host ? 0 : -EINVAL;
}

static int parse_one(char *s, struct gateway *gw, int max)
{
	char *host;
	uint16_t port;

	if (!strncmp(s, "unix:", 5)) {
		gw->addr = (struct net_addr){.family = AF_UNIX};
		if (!s[5])
			return -EINVAL;
		if (strlen(s + 5) >= sizeof(gw->addr.path))
			return -ENAMETOOLONG;
		memcpy(gw->addr.path, s + 5, strlen(s + 5));
		gateway_name(gw);
		return 1;
	}
	int r = split(s, &host, &port);
	return r < 0 ? r : resolve(host, port, gw, max);
}

int gateways_parse(const char *list, struct gateway gw[GATEWAYS_MAX])
{
	CLEANUP(freep) char *copy = strdup(list ? list : "127.0.0.1");
	char *save = NULL;
	int n = 0, unresolved = 0;

	if (!copy)
		return -ENOMEM;
	for (char *s = strtok_r(copy, ",", &save); s; s = strtok_r(NULL, ",", &save)) {
		if (n == GATEWAYS_MAX)
			return -E2BIG;
		int r = parse_one(s, &gw[n], GATEWAYS_MAX - n);
		if (r == -EHOSTUNREACH)
			unresolved = r; /* the others may do */
		else if (r < 0)
			return r;
		else
			n += r;
	}
	return n ? n : unresolved ? unresolved : -EINVAL;
}
