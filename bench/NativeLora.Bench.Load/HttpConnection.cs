using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace NativeLora.Bench.Load;

/// <summary>One connection that is kept open and asks one thing at a time: as little of the processors as can be, which are the server's too.</summary>
internal sealed class HttpConnection(IPEndPoint server) : IDisposable
{
    private readonly byte[] _buffer = new byte[64 << 10];
    private Socket? _socket;

    /// <summary>A request as it goes over the wire.</summary>
    public static byte[] Post(string path, byte[] json) =>
        [.. Encoding.ASCII.GetBytes($"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {json.Length}\r\n\r\n"), .. json];

    /// <summary>Asks, and gives the status; 0 where the connection broke.</summary>
    public async ValueTask<int> AskAsync(byte[] request)
    {
        try
        {
            var (status, _) = await SendAsync(request);
            return status;
        }
        catch (Exception e) when (e is SocketException or IOException)
        {
            Dispose();
            return 0;
        }
    }

    /// <summary>Asks, and gives the body too.</summary>
    public async Task<(int Status, string Body)> AskForBodyAsync(byte[] request)
    {
        var (status, body) = await SendAsync(request);
        return (status, Encoding.UTF8.GetString(_buffer, body.Offset, body.Length));
    }

    private async ValueTask<(int Status, (int Offset, int Length) Body)> SendAsync(byte[] request)
    {
        if (_socket is null)
        {
            _socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
            await _socket.ConnectAsync(server);
        }
        await _socket.SendAsync(request);
        int have = 0, head = -1, length = 0;
        while (head < 0 || have < head + length)
        {
            var read = await _socket.ReceiveAsync(_buffer.AsMemory(have));
            if (read == 0)
                throw new IOException("the server closed the connection");
            have += read;
            if (head >= 0 || _buffer.AsSpan(0, have).IndexOf("\r\n\r\n"u8) is not (>= 0 and var end))
                continue;
            head = end + 4;
            length = ContentLength(_buffer.AsSpan(0, end));
            if (head + length > _buffer.Length)
                throw new IOException("the answer is longer than any that is expected");
        }
        var status = int.Parse(_buffer.AsSpan("HTTP/1.1 ".Length, 3), CultureInfo.InvariantCulture);
        return (status, (head, length));
    }

    private static int ContentLength(ReadOnlySpan<byte> head)
    {
        var at = head.IndexOf("Content-Length: "u8);
        if (at < 0)
            throw new IOException("an answer without a length");
        var number = head[(at + "Content-Length: ".Length)..];
        var end = number.IndexOf((byte)'\r');
        return int.Parse(end < 0 ? number : number[..end], CultureInfo.InvariantCulture);
    }

    public void Dispose()
    {
        _socket?.Dispose();
        _socket = null;
    }
}
