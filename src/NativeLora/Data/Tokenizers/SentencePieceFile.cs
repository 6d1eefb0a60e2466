using Google.Protobuf;

namespace NativeLora.Data.Tokenizers;

/// <summary>
/// Reads a SentencePiece model (tokenizer.model) of the BPE kind, as Llama and Mistral have it, into the same parts that a
/// tokenizer.json gives. Merges are derived from the pieces as Hugging Face's converter does it.
/// </summary>
internal static class SentencePieceFile
{
    private const string Mark = "\u2581";

    private enum PieceType
    {
        Normal = 1,
        Unknown = 2,
        Control = 3,
        UserDefined = 4,
        Unused = 5,
        Byte = 6,
    }

    private readonly record struct Piece(string Text, float Score, PieceType Type);

    private sealed class Contents
    {
        public List<Piece> Pieces { get; } = [];
        public int ModelType { get; set; } = 1;
        public int BosId { get; set; } = 1;
        public int CharacterMap { get; set; }
        public bool DummyPrefix { get; set; } = true;
        public bool RemoveExtraSpaces { get; set; } = true;
        public bool EscapeSpaces { get; set; } = true;
    }

    /// <param name="file">The model.</param>
    /// <param name="controlInText">
    /// Control pieces such as &lt;s&gt; are recognised in a text, as Hugging Face does; SentencePiece itself takes them as text.
    /// </param>
    public static Pipeline Load(string file, bool controlInText)
    {
        var contents = Read(file);
        if (contents.ModelType != 2)
            throw Wrong("only models of the BPE kind are supported here");
        if (contents.CharacterMap > 0 || contents.RemoveExtraSpaces || !contents.EscapeSpaces)
            throw Wrong("its normalizer rewrites characters, which is not supported here; use a tokenizer.json");

        var vocabulary = new Vocabulary(file, contents.Pieces.Count);
        var added = new List<AddedToken>();
        int? unknownId = null;
        for (var id = 0; id < contents.Pieces.Count; id++)
        {
            var piece = contents.Pieces[id];
            if (piece.Text.Length == 0)
                throw Wrong($"piece {id} is empty");
            vocabulary.Add(piece.Text, id);
            if (piece.Type == PieceType.Unknown)
                unknownId = id;
            if (piece.Type == PieceType.UserDefined || (controlInText && piece.Type is PieceType.Unknown or PieceType.Control))
                added.Add(new AddedToken(piece.Text, id, Special: piece.Type != PieceType.UserDefined));
        }
        if (unknownId is null)
            throw Wrong("it has no unknown piece");
        var byteFallback = contents.Pieces.Any(piece => piece.Type == PieceType.Byte);
        var model = new BpeModel(vocabulary, Merges(contents.Pieces, vocabulary), (_, what) => Wrong(what),
            new BpeOptions(unknownId, FuseUnknown: true, ByteFallback: byteFallback));
        var replace = new ReplaceNormalizer(new StringPattern(" "), Mark);
        Normalizer normalizer = contents.DummyPrefix ? new SequenceNormalizer([new PrependNormalizer(Mark), replace]) : replace;
        var template = contents.BosId >= 0 && contents.BosId < contents.Pieces.Count
            ? Template.Begin(contents.BosId) : Template.Plain;
        var decoder = new List<Decoder> { new ReplaceDecoder(new StringPattern(Mark), " "), new ByteFallbackDecoder(), new FuseDecoder() };
        if (contents.DummyPrefix)
            decoder.Add(new StripDecoder(" ", 1, 0));
        return new Pipeline(file, model, added, normalizer, null, template, new SequenceDecoder(decoder));

        InputException Wrong(string what) => new($"{file}: {what}; use the file that was saved with the model");
    }

    /// <summary>Every way of cutting a piece into two others: the best score first, then the longer left side.</summary>
    private static List<(string, string)> Merges(List<Piece> pieces, Vocabulary vocabulary)
    {
        var found = new List<(string Left, string Right, float Score, int LeftId, int RightId, int Order)>();
        for (var order = 0; order < pieces.Count; order++)
        {
            var (text, score, type) = pieces[order];
            if (type is not (PieceType.Normal or PieceType.UserDefined))
                continue;
            for (var cut = 1; cut < text.Length; cut++)
            {
                if (char.IsLowSurrogate(text[cut]))
                    continue;
                if (vocabulary.Lookup.TryGetValue(text.AsSpan(0, cut), out var left)
                    && vocabulary.Lookup.TryGetValue(text.AsSpan(cut), out var right))
                    found.Add((text[..cut], text[cut..], score, left, right, order));
            }
        }
        return [.. found.OrderByDescending(merge => merge.Score).ThenByDescending(merge => Length(merge.Left))
            .ThenByDescending(merge => Length(merge.Right)).ThenBy(merge => merge.Order).ThenBy(merge => merge.LeftId)
            .ThenBy(merge => merge.RightId).Select(merge => (merge.Left, merge.Right))];

        static int Length(string text) => text.Count(c => !char.IsLowSurrogate(c));
    }

    private static Contents Read(string file)
    {
        var contents = new Contents();
        try
        {
            var stream = new CodedInputStream(File.ReadAllBytes(file));
            for (uint tag; (tag = stream.ReadTag()) != 0;)
            {
                switch (tag)
                {
                    case (1 << 3) | 2:
                        contents.Pieces.Add(ReadPiece(stream.ReadBytes()));
                        break;
                    case (2 << 3) | 2:
                        ReadTrainer(stream.ReadBytes(), contents);
                        break;
                    case (3 << 3) | 2:
                        ReadNormalizer(stream.ReadBytes(), contents);
                        break;
                    default:
                        stream.SkipLastField();
                        break;
                }
            }
        }
        catch (InvalidProtocolBufferException e)
        {
            throw new InputException($"{file}: not a SentencePiece model ({TextFile.OneLine(e)}); fetch it again", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file}: cannot be read ({TextFile.OneLine(e)})", e);
        }
        return contents.Pieces.Count > 0 ? contents
            : throw new InputException($"{file}: not a SentencePiece model, no piece in it; fetch it again");
    }

    private static Piece ReadPiece(ByteString bytes)
    {
        var stream = bytes.CreateCodedInput();
        var piece = new Piece("", 0, PieceType.Normal);
        for (uint tag; (tag = stream.ReadTag()) != 0;)
        {
            switch (tag)
            {
                case (1 << 3) | 2:
                    piece = piece with { Text = stream.ReadString() };
                    break;
                case (2 << 3) | 5:
                    piece = piece with { Score = stream.ReadFloat() };
                    break;
                case 3 << 3:
                    piece = piece with { Type = (PieceType)stream.ReadEnum() };
                    break;
                default:
                    stream.SkipLastField();
                    break;
            }
        }
        return piece;
    }

    private static void ReadTrainer(ByteString bytes, Contents contents)
    {
        var stream = bytes.CreateCodedInput();
        for (uint tag; (tag = stream.ReadTag()) != 0;)
        {
            if (tag == 3 << 3)
                contents.ModelType = stream.ReadEnum();
            else if (tag == 41 << 3)
                contents.BosId = stream.ReadInt32();
            else
                stream.SkipLastField();
        }
    }

    private static void ReadNormalizer(ByteString bytes, Contents contents)
    {
        var stream = bytes.CreateCodedInput();
        for (uint tag; (tag = stream.ReadTag()) != 0;)
        {
            switch (tag)
            {
                case (2 << 3) | 2:
                    contents.CharacterMap = stream.ReadBytes().Length;
                    break;
                case 3 << 3:
                    contents.DummyPrefix = stream.ReadBool();
                    break;
                case 4 << 3:
                    contents.RemoveExtraSpaces = stream.ReadBool();
                    break;
                case 5 << 3:
                    contents.EscapeSpaces = stream.ReadBool();
                    break;
                default:
                    stream.SkipLastField();
                    break;
            }
        }
    }
}
