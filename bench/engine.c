/* A stand-in for an inference server that is fast enough to disappear behind whatever is measured in front of it.
 *
 *   engine PORT [ABLE_AFTER_MS [deaf|busy]]
 *
 * It answers as an OpenAI-style server does: GET /health and /v1/models, and every POST with a small JSON answer or a
 * stream of events. What the answer is like is written somewhere in the first 4 KB of the body:
 *
 *   bench:EVENTS,PAUSE_US,BYTES;      0 events: a JSON answer of so many bytes
 *
 * Each event is an HTTP chunk and a packet of its own and carries the moment of its sending; a pause of 0 means as fast
 * as the socket takes them. With ABLE_AFTER_MS it cannot answer before that moment: deaf, the port is not even open;
 * busy, everything gets 503. GET /moments tells when it became able and when the first such POST came, as nanoseconds
 * of the monotonic clock.
 */
#include "common.h"

enum { HEAD_MAX = 65536, KEPT = 4096, BURST = 64, EVENT_MAX = 66000 };
enum place { IN_HEAD, IN_BODY, ANSWERING };

typedef struct conn {
    int fd, heap_at;
    enum place place;
    char *head;
    size_t head_size;
    char kept[KEPT + 1];
    size_t kept_size;
    long long body_left;
    int post, keep_alive, streaming, ending, writable_wanted;
    char path[64];
    int events, sent, pause_us, bytes;
    uint64_t due;
    char *out;
    size_t out_size, out_at, out_room;
    struct conn *next_dead;
} conn;

static int epoll_fd, busy_until_able;
static uint64_t able_at, first_at;
static conn *dead;
static char reads[1 << 18];

/* Streams that wait for their next event, the nearest first. */
static conn **heap;
static int heap_size, heap_room;

static void heap_set(int at, conn *c) {
    heap[at] = c;
    c->heap_at = at;
}

static void heap_lift(int at) {
    conn *c = heap[at];
    for (; at && heap[(at - 1) / 2]->due > c->due; at = (at - 1) / 2) heap_set(at, heap[(at - 1) / 2]);
    heap_set(at, c);
}

static void heap_sink(int at) {
    conn *c = heap[at];
    for (int child; (child = 2 * at + 1) < heap_size; at = child) {
        if (child + 1 < heap_size && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= c->due) break;
        heap_set(at, heap[child]);
    }
    heap_set(at, c);
}

static void heap_push(conn *c) {
    if (heap_size == heap_room) heap = grow(heap, sizeof *heap * (size_t)(heap_room = heap_room ? heap_room * 2 : 256));
    heap_set(heap_size, c);
    heap_lift(heap_size++);
}

static void heap_remove(conn *c) {
    int at = c->heap_at;
    if (at < 0) return;
    c->heap_at = -1;
    conn *last = heap[--heap_size];
    if (last == c) return;
    heap_set(at, last);
    heap_sink(at);
    heap_lift(last->heap_at);
}

static void drop(conn *c) {
    if (c->fd < 0) return;
    heap_remove(c);
    close(c->fd);
    c->fd = -1;
    c->next_dead = dead;
    dead = c;
}

static void want_writable(conn *c, int wanted) {
    if (c->writable_wanted == wanted) return;
    c->writable_wanted = wanted;
    watch(epoll_fd, EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLRDHUP | (wanted ? EPOLLOUT : 0), c);
}

/* Whether all of it is with the kernel; what is not waits in `out`. */
static int put(conn *c, const char *data, size_t size) {
    if (c->fd < 0) return 0;
    if (c->out_at == c->out_size) {
        ssize_t written = send(c->fd, data, size, MSG_NOSIGNAL);
        if (written == (ssize_t)size) return 1;
        if (written < 0 && errno != EAGAIN) {
            drop(c);
            return 0;
        }
        if (written > 0) data += written, size -= (size_t)written;
        c->out_at = c->out_size = 0;
    }
    if (c->out_size + size > c->out_room) c->out = grow(c->out, c->out_room = c->out_size + size + 4096);
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
    want_writable(c, 1);
    return 0;
}

static void take(conn *c, const char *data, size_t size);

static void finished(conn *c) {
    c->streaming = c->ending = 0;
    c->place = IN_HEAD;
    c->kept_size = 0;
    if (!c->keep_alive) {
        drop(c);
        return;
    }
    size_t rest = c->head_size;
    if (rest) {
        char *copy = memcpy(grow(NULL, rest), c->head, rest);
        c->head_size = 0;
        take(c, copy, rest);
        free(copy);
    }
}

static void put_last(conn *c, const char *data, size_t size) {
    if (put(c, data, size)) finished(c);
    else if (c->fd >= 0) c->ending = 1;
}

static void put_json(conn *c, int status, const char *body) {
    static char answer[EVENT_MAX + 512];
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 %d X\r\nServer: bench\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                        status, strlen(body), body);
    put_last(c, answer, (size_t)size);
}

#define CHUNK "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench\",\"choices\":"

static int put_event(conn *c) {
    static char packet[EVENT_MAX + 64], text[EVENT_MAX + 1];
    static const char before[] = "data: " CHUNK "[{\"index\":0,\"delta\":{\"content\":\"", after[] = "\"},\"finish_reason\":null}]}\n\n";
    int padding = c->bytes - (int)(sizeof before + sizeof after + STAMP_DIGITS);
    if (padding < 1) padding = 1;
    memset(text, 'x', (size_t)padding);
    text[padding] = 0;
    int size = (int)(sizeof before - 1) + 1 + STAMP_DIGITS + padding + (int)(sizeof after - 1);
    int packet_size = snprintf(packet, sizeof packet, "%x\r\n%s%c%019llu%s%s\r\n", size, before, STAMP,
                               (unsigned long long)now_ns(), text, after);
    c->sent++;
    return put(c, packet, (size_t)packet_size);
}

static void put_end(conn *c) {
    char events[600], packet[700];
    int size = snprintf(events, sizeof events,
                        "data: " CHUNK "[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
                        "data: " CHUNK "[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n"
                        "data: [DONE]\n\n", c->events, 100 + c->events);
    size = snprintf(packet, sizeof packet, "%x\r\n%s\r\n0\r\n\r\n", size, events);
    put_last(c, packet, (size_t)size);
}

/* Send what is due. A client that reads slowly is waited for. */
static void go_on(conn *c) {
    if (!c->streaming || c->ending || c->out_at != c->out_size) return;
    if (c->pause_us) {
        uint64_t now = now_ns();
        if (now < c->due) {
            heap_push(c);
        } else if (c->sent == c->events) {
            put_end(c);
        } else if (put_event(c), c->fd >= 0) {
            /* The first pauses differ, so that streams that began together do not speak together. */
            uint64_t pause = (uint64_t)c->pause_us * 1000;
            c->due = c->sent == 1 ? now + pause / 4 + (uint64_t)random() % (pause * 3 / 2 + 1) : c->due + pause;
            if (c->due < now) c->due = now;
            if (c->out_at == c->out_size) heap_push(c);
        }
        return;
    }
    for (int i = 0; i < BURST && c->sent < c->events; i++)
        if (!put_event(c)) return;
    if (c->sent < c->events) c->due = now_ns(), heap_push(c);
    else put_end(c);
}

static void answer(conn *c) {
    static char body[EVENT_MAX];
    c->place = ANSWERING;
    if (!strcmp(c->path, "/moments")) {
        snprintf(body, sizeof body, "{\"able_ns\":%llu,\"first_ns\":%llu}", (unsigned long long)able_at, (unsigned long long)first_at);
        put_json(c, 200, body);
        return;
    }
    if (busy_until_able && now_ns() < able_at) {
        put_json(c, 503, "{\"error\":{\"code\":503,\"message\":\"Loading model\",\"type\":\"unavailable_error\"}}");
        return;
    }
    if (!c->post) {
        put_json(c, 200, "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"bench\"}]}");
        return;
    }
    c->kept[c->kept_size] = 0;
    const char *wish = strstr(c->kept, "bench:");
    c->events = c->pause_us = 0;
    c->bytes = 500;
    if (wish) {
        sscanf(wish, "bench:%d,%d,%d;", &c->events, &c->pause_us, &c->bytes);
        if (!first_at) first_at = now_ns();
    }
    if (c->bytes > EVENT_MAX - 600) c->bytes = EVENT_MAX - 600;
    if (c->events <= 0) {
        static const char form[] = "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%.*s\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":50,\"total_tokens\":150}}";
        static char text[EVENT_MAX];
        int padding = c->bytes - (int)sizeof form + 6;
        if (!text[0]) memset(text, 'x', sizeof text - 1);
        snprintf(body, sizeof body, form, padding > 0 ? padding : 1, text);
        put_json(c, 200, body);
        return;
    }
    static const char head[] = "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    c->streaming = 1;
    c->sent = 0;
    c->due = now_ns();
    put(c, head, sizeof head - 1);
    go_on(c);
}

static const char *header(const char *head, const char *name) {
    for (const char *line = strchr(head, '\n'); line; line = strchr(line, '\n')) {
        if (!strncasecmp(++line, name, strlen(name))) return line + strlen(name) + strspn(line + strlen(name), " ");
    }
    return NULL;
}

/* The head is whole and ends with a zero: what kind of request is it? */
static void read_head(conn *c) {
    c->post = !strncmp(c->head, "POST ", 5);
    c->path[0] = 0;
    sscanf(c->head, "%*s %63s", c->path);
    const char *length = header(c->head, "content-length:"), *connection = header(c->head, "connection:");
    c->body_left = length ? atoll(length) : 0;
    c->keep_alive = !(connection && !strncasecmp(connection, "close", 5)) && !strstr(c->head, " HTTP/1.0");
    c->place = IN_BODY;
    if (header(c->head, "transfer-encoding:")) drop(c); /* a body without a length is not for this server */
}

static void take(conn *c, const char *data, size_t size) {
    while (c->fd >= 0) {
        if (c->place == IN_BODY && c->body_left == 0) {
            answer(c);
        } else if (size == 0) {
            return;
        } else if (c->place == IN_BODY) {
            size_t part = size < (size_t)c->body_left ? size : (size_t)c->body_left;
            size_t keep = part < KEPT - c->kept_size ? part : KEPT - c->kept_size;
            memcpy(c->kept + c->kept_size, data, keep);
            c->kept_size += keep;
            c->body_left -= (long long)part;
            data += part, size -= part;
        } else {
            /* A head, or what a client sends before it has its answer: both are kept here. */
            size_t old = c->head_size, part = size < HEAD_MAX - old - 1 ? size : HEAD_MAX - old - 1;
            if (!part) {
                drop(c);
                return;
            }
            memcpy(c->head + old, data, part);
            c->head_size += part;
            if (c->place == ANSWERING) return;
            char *end = memmem(c->head, c->head_size, "\r\n\r\n", 4);
            if (!end) {
                data += part, size -= part;
                continue;
            }
            size_t used = (size_t)(end + 4 - c->head) - old;
            *end = 0;
            c->head_size = 0;
            read_head(c);
            data += used, size -= used;
        }
    }
}

static void flush(conn *c) {
    while (c->out_at < c->out_size) {
        ssize_t written = send(c->fd, c->out + c->out_at, c->out_size - c->out_at, MSG_NOSIGNAL);
        if (written < 0) {
            if (errno != EAGAIN) drop(c);
            return;
        }
        c->out_at += (size_t)written;
    }
    want_writable(c, 0);
    if (c->ending) finished(c);
    else go_on(c);
}

static void welcome(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        no_delay(fd);
        conn *c = memset(grow(NULL, sizeof *c), 0, sizeof *c);
        c->fd = fd;
        c->heap_at = -1;
        c->head = grow(NULL, HEAD_MAX);
        watch(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP, c);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = loopback(port);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) fail("cannot listen");
    return fd;
}

static void serve(conn *c, uint32_t events) {
    if (c->fd >= 0 && events & EPOLLOUT) flush(c);
    if (c->fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))) return;
    ssize_t size = recv(c->fd, reads, sizeof reads, 0);
    if (size > 0) take(c, reads, (size_t)size);
    else if (size == 0 || errno != EAGAIN) drop(c);
}

int main(int count, char **words) {
    if (count < 2) {
        fprintf(stderr, "usage: engine PORT [ABLE_AFTER_MS [deaf|busy]]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    long long able_after_ms = count > 2 ? atoll(words[2]) : 0;
    able_at = now_ns() + (uint64_t)able_after_ms * 1000000ull;
    busy_until_able = count > 3 && !strcmp(words[3], "busy");
    if (able_after_ms && !busy_until_able) {
        usleep((useconds_t)(able_after_ms * 1000));
        able_at = now_ns();
    }
    int listener = listen_on(atoi(words[1]));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(epoll_fd, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    struct epoll_event ready[512];
    for (;;) {
        int64_t wait = heap_size ? (int64_t)(heap[0]->due - now_ns()) : 1000000000;
        if (wait < 0) wait = 0;
        struct timespec limit = {.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000};
        int found = epoll_pwait2(epoll_fd, ready, 512, &limit, NULL);
        for (int i = 0; i < found; i++) {
            if (ready[i].data.ptr) serve(ready[i].data.ptr, ready[i].events);
            else welcome(listener);
        }
        for (uint64_t now = now_ns(); heap_size && heap[0]->due <= now;) {
            conn *c = heap[0];
            heap_remove(c);
            go_on(c);
        }
        for (conn *c; (c = dead);) {
            dead = c->next_dead;
            free(c->head);
            free(c->out);
            free(c);
        }
    }
}
