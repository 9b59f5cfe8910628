/* The plainest loops in C: what `headrace bench` is held against.
 *
 *   loop stream|sendfile SIZE SECONDS CONGESTION [FILE]
 *
 * Sends from a child to its parent over loopback in calls of SIZE bytes and prints, as JSON, the
 * bytes that arrived, the seconds it took, and the CPU seconds of both.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu(int who) {
    struct rusage u;
    getrusage(who, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void must(int ok, const char *what) {
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static void paced_by(int sock, const char *name) {
    must(!setsockopt(sock, IPPROTO_TCP, TCP_CONGESTION, name, strlen(name)), name);
}

static void send_memory(int sock, size_t size, double seconds) {
    char *block = malloc(size);
    memset(block, 1, size);
    double end = now() + seconds;
    while (now() < end)
        must(send(sock, block, size, 0) == (ssize_t)size, "send");
}

static void send_file(int sock, size_t size, double seconds, const char *path) {
    int file = open(path, O_RDONLY);
    must(file >= 0, path);
    struct stat found;
    fstat(file, &found);
    off_t offset = 0;
    double end = now() + seconds;
    while (now() < end) {
        must(sendfile(sock, file, &offset, size) > 0, "sendfile");
        if (offset >= found.st_size)
            offset = 0;
    }
}

int main(int count, char **words) {
    must(count >= 5, "usage: loop stream|sendfile SIZE SECONDS CONGESTION [FILE]");
    size_t size = strtoul(words[2], NULL, 10);
    double seconds = strtod(words[3], NULL);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    paced_by(listener, words[4]);
    must(!bind(listener, (void *)&address, length) && !listen(listener, 1), "listen");
    must(!getsockname(listener, (void *)&address, &length), "getsockname");
    pid_t child = fork();
    if (!child) {
        int sock = socket(AF_INET, SOCK_STREAM, 0);
        paced_by(sock, words[4]);
        must(!connect(sock, (void *)&address, length), "connect");
        if (!strcmp(words[1], "stream"))
            send_memory(sock, size, seconds);
        else
            send_file(sock, size, seconds, words[5]);
        return 0;
    }
    int sock = accept(listener, NULL, NULL);
    must(sock >= 0, "accept");
    size_t room = 131072;
    char *buffer = malloc(room);
    memset(buffer, 1, room);
    double began = now(), used = cpu(RUSAGE_SELF);
    long long bytes = 0;
    ssize_t got;
    while ((got = recv(sock, buffer, room, 0)) > 0)
        bytes += got;
    double took = now() - began;
    used = cpu(RUSAGE_SELF) - used;
    int status;
    waitpid(child, &status, 0);
    printf("{\"bytes\": %lld, \"seconds\": %f, \"sender\": %f, \"receiver\": %f}\n", bytes, took,
           cpu(RUSAGE_CHILDREN), used);
    return status != 0;
}
