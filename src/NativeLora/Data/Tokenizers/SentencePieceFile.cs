using Google.Protobuf;

namespace NativeLora.Data.Tokenizers;

internal enum PieceType
{
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// <summary>One piece of a SentencePiece model; its id is its position.</summary>
internal readonly record struct Piece(string Text, float Score, PieceType Type);

/// <summary>A SentencePiece model file: its pieces and the settings that matter for encoding.</summary>
internal sealed class SentencePieceFile
{
    private SentencePieceFile(string file) => File = file;

    public string File { get; }

    public List<Piece> Pieces { get; } = [];

    // Defaults are those of the format.
    public int ModelType { get; private set; } = 1;

    public bool IsBpe => ModelType == 2;

    public bool IsUnigram => ModelType == 1;

    public int BosId { get; private set; } = 1;

    public int EosId { get; private set; } = 2;

    public byte[] CharacterMap { get; private set; } = [];

    public bool DummyPrefix { get; private set; } = true;

    public bool RemoveExtraSpaces { get; private set; } = true;

    public bool EscapeSpaces { get; private set; } = true;

    public InputException Wrong(string what) => new($"{File}: {what}; use the file that was saved with the model");

    /// <summary>All pieces with their ids.</summary>
    public Vocabulary Vocabulary()
    {
        var vocabulary = new Vocabulary(File, Pieces.Count);
        for (var id = 0; id < Pieces.Count; id++)
        {
            if (Pieces[id].Text.Length == 0)
                throw Wrong($"piece {id} is empty");
            vocabulary.Add(Pieces[id].Text, id);
        }
        return vocabulary;
    }

    public int UnknownId()
    {
        var id = Pieces.FindIndex(piece => piece.Type == PieceType.Unknown);
        return id >= 0 ? id : throw Wrong("it has no unknown piece");
    }

    public static SentencePieceFile Read(string file)
    {
        var contents = new SentencePieceFile(file);
        try
        {
            var stream = new CodedInputStream(System.IO.File.ReadAllBytes(file));
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

    private static void ReadTrainer(ByteString bytes, SentencePieceFile contents)
    {
        var stream = bytes.CreateCodedInput();
        for (uint tag; (tag = stream.ReadTag()) != 0;)
        {
            if (tag == 3 << 3)
                contents.ModelType = stream.ReadEnum();
            else if (tag == 41 << 3)
                contents.BosId = stream.ReadInt32();
            else if (tag == 42 << 3)
                contents.EosId = stream.ReadInt32();
            else
                stream.SkipLastField();
        }
    }

    private static void ReadNormalizer(ByteString bytes, SentencePieceFile contents)
    {
        var stream = bytes.CreateCodedInput();
        for (uint tag; (tag = stream.ReadTag()) != 0;)
        {
            switch (tag)
            {
                case (2 << 3) | 2:
                    contents.CharacterMap = stream.ReadBytes().ToByteArray();
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
